// fork() while other threads are in the middle of every kind of call: the child's pool works.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "support/child_process.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

enum ChildResult : int { kWorked = 0, kNotServed, kNotReleased, kNotTrimmed, kUntrueStatistics, kUnknownFailure };

/// What the child does with the pool it inherited, on its only thread.
[[nodiscard]] ChildResult use_pool(MemoryPool& pool, const Allocation& inherited) {
  const PoolStatistics before = pool.statistics();
  if (!pool.release(inherited)) {
    return kNotReleased;
  }
  for (const std::uint64_t bytes : {std::uint64_t{1000}, pool.heap_size_bytes() / 2, 2 * pool.heap_size_bytes()}) {
    const Allocation allocation = pool.allocate(bytes);
    if (!allocation) {
      return kNotServed;
    }
    if (pool.device().host_accessible()) {
      std::fill_n(static_cast<char*>(pointer_at(allocation.address)), bytes, 'x');
    }
    if (!pool.release(allocation)) {
      return kNotReleased;
    }
  }
  pool.warm_up(std::array{pool.heap_size_bytes()});
  if (pool.trim() == 0) {
    return kNotTrimmed;
  }
  const auto another = MemoryPool::create(testing::quiet_config(2 * kMiB, 1), std::make_shared<SimulatedDevice>());
  const PoolStatistics after = pool.statistics();
  const bool is_true = after.active_allocations + 1 == before.active_allocations &&
                       after.total_allocations == before.total_allocations + 3 &&
                       after.total_deallocations == before.total_deallocations + 4 &&
                       after.used_bytes + inherited.block_bytes == before.used_bytes &&
                       after.fallback_allocations <= after.exhaustion_events;
  return is_true ? kWorked : kUntrueStatistics;
}

/// Forks many times while threads hammer the pool, and expects every child to succeed.
void fork_under_load(const std::shared_ptr<Device>& device, bool magazines) {
  PoolConfig config = testing::quiet_config(16 * kMiB, 2);
  config.magazines = magazines;
  const std::shared_ptr<MemoryPool> owned = MemoryPool::create(config, device);
  MemoryPool& pool = *owned;
  const Allocation inherited = pool.allocate(1000);
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  const auto hammer = [&done, &threads](auto call) {
    threads.emplace_back([&done, call] {
      while (!done) {
        call();
      }
    });
  };
  hammer([&pool] { static_cast<void>(pool.release(pool.allocate(1000))); });
  hammer([&pool] { static_cast<void>(pool.release(pool.allocate(17 * kMiB))); });
  hammer([&pool] {
    pool.warm_up(std::array{4 * kMiB});
    pool.trim();
  });
  hammer([&pool] {
    static_cast<void>(pool.statistics());
    std::this_thread::yield();
  });
  hammer([device] { static_cast<void>(MemoryPool::create(testing::quiet_config(2 * kMiB, 2), device)); });
  for (int round = 0; round < 25 && !::testing::Test::HasFailure(); ++round) {
    EXPECT_EQ(testing::exit_status_beside_threads([&] {
                try {
                  return use_pool(pool, inherited);
                } catch (...) {
                  return kUnknownFailure;
                }
              }),
              kWorked)
        << "round " << round;
  }
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(pool.release(inherited));
  testing::expect_identities(pool);
  EXPECT_EQ(pool.statistics().active_allocations, 0u);
}

class MemoryPoolFork : public ::testing::TestWithParam<bool> {};

TEST_P(MemoryPoolFork, ChildUsesThePoolOfASimulatedDevice) {
  const auto device = std::make_shared<SimulatedDevice>();
  fork_under_load(device, GetParam());
  testing::expect_all_given_back(*device);
}

TEST_P(MemoryPoolFork, ChildUsesThePoolOfTheHostDevice) { fork_under_load(std::make_shared<HostDevice>(), GetParam()); }

INSTANTIATE_TEST_SUITE_P(Magazines, MemoryPoolFork, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

}  // namespace
}  // namespace tierpool
