#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "support/child_process.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool {
namespace {

// The child must find no lock held by a thread it does not have.
TEST(BufferPoolFork, ChildCanUseThePool) {
  BufferPool pool({}, testing::bare(std::make_shared<HostDevice>()));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t step = 0; !stop; ++step) {
        static_cast<void>(pool.release(pool.alloc(step % 5000)));
        static_cast<void>(pool.trim(1000));
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(testing::exit_status_beside_threads([&pool] {
                const Lease lease = pool.alloc(3000);
                const bool served = pool.state_of(lease) == LeaseState::live;
                const bool reset = pool.reset() == ResetOutcome::done && pool.in_use_count() == 0;
                pool.clear();
                return served && reset ? 0 : 1;
              }),
              0);
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(pool.in_use_count(), 0u);
}

}  // namespace
}  // namespace tierpool
