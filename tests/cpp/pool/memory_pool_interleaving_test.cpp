// Calls in the middle of other calls, at the moment when those wait for the device or log.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "support/hooked_device.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;

class MemoryPoolInterleavingTest : public ::testing::Test {
 protected:
  MemoryPoolInterleavingTest() {
    PoolConfig config = testing::quiet_config(8 * kGranule, 2);
    config.log_exhaustion = true;
    set_log_sink([](LogLevel, std::string_view) {});
    pool_ = std::make_unique<MemoryPool>(config, device_);
  }
  ~MemoryPoolInterleavingTest() override {
    set_log_sink(nullptr);
    pool_.reset();
    testing::expect_all_given_back(device_->simulated());
  }

  /// Runs `call` when the device is asked for the first time, and not in what `call` itself asks of it.
  template <typename Call>
  static void once(std::function<void()>& hook, Call call) {
    hook = [&hook, call] {
      const auto keep_alive = std::exchange(hook, nullptr);
      call();
    };
  }

  std::shared_ptr<testing::HookedDevice> device_ = std::make_shared<testing::HookedDevice>(kGiB);
  std::unique_ptr<MemoryPool> pool_;
};

TEST_F(MemoryPoolInterleavingTest, CloseDuringWarmUpLeavesTheReservationUntilTheDeviceIsDone) {
  std::uint64_t reserved = 0;
  once(device_->on_commit, [&] {
    pool_->close();
    reserved = device_->simulated().reserved_bytes();
  });
  EXPECT_THROW(pool_->warm_up(std::array{4 * kGranule}), PoolClosedError);
  EXPECT_EQ(reserved, 8 * kGranule) << "the other heap has gone, the one in use has not";
  EXPECT_EQ(device_->simulated().reserved_bytes(), 0u);
}

TEST_F(MemoryPoolInterleavingTest, CloseDuringTrimLeavesTheReservationUntilTheDeviceIsDone) {
  pool_->warm_up(std::array{8 * kGranule});
  std::uint64_t reserved = 0;
  once(device_->on_decommit, [&] {
    pool_->close();
    reserved = device_->simulated().reserved_bytes();
  });
  EXPECT_EQ(pool_->trim(), 8 * kGranule);
  EXPECT_EQ(reserved, 8 * kGranule);
  EXPECT_EQ(device_->simulated().reserved_bytes(), 0u);
}

TEST_F(MemoryPoolInterleavingTest, AllocationThatWaitsForItsCommitSurvivesClose) {
  once(device_->on_commit, [&] { pool_->close(); });
  const Allocation allocation = pool_->allocate(1000);
  EXPECT_EQ(device_->simulated().reserved_bytes(), 8 * kGranule);
  EXPECT_EQ(pool_->statistics().total_allocations, 1u);
  EXPECT_TRUE(pool_->release(allocation));
  EXPECT_EQ(device_->simulated().reserved_bytes(), 0u);
}

TEST_F(MemoryPoolInterleavingTest, RequestThatFindsThePoolClosedOnItsWayIsNoExhaustion) {
  once(device_->on_commit, [&] {
    pool_->close();
    device_->simulated().fail(DeviceCall::commit);
  });
  EXPECT_THROW(static_cast<void>(pool_->allocate(1000)), PoolClosedError);
  EXPECT_EQ(pool_->statistics().exhaustion_events, 0u);
  EXPECT_EQ(pool_->statistics().total_allocations, 0u);
  EXPECT_EQ(device_->simulated().reserved_bytes(), 0u);
}

TEST_F(MemoryPoolInterleavingTest, RequestDuringATrimWaitsForItInsteadOfFailing) {
  const Allocation other_heap = pool_->allocate(1);
  const Allocation blocker = pool_->allocate(8 * kGranule);
  ASSERT_TRUE(pool_->release(other_heap));
  pool_->warm_up(std::array{8 * kGranule});
  std::thread waiting;
  std::optional<Allocation> served;
  once(device_->on_decommit, [&] {
    Allocation allocation;
    EXPECT_EQ(pool_->serve({.bytes = 1, .heaps_only = true, .may_block = false}, allocation),
              AllocationOutcome::would_block);
    EXPECT_EQ(pool_->serve({.bytes = 9 * kGranule, .heaps_only = true, .may_block = false}, allocation),
              AllocationOutcome::out_of_memory)
        << "no trim can be the reason for a request that no heap holds";
    EXPECT_EQ(pool_->statistics().used_bytes, 8 * kGranule);
    waiting = std::thread([&] { served = pool_->try_allocate(1000); });
  });
  EXPECT_EQ(pool_->trim(), 8 * kGranule);
  waiting.join();
  ASSERT_TRUE(served);
  EXPECT_EQ(pool_->statistics().peak_used_bytes, 8 * kGranule + 1024);
  EXPECT_EQ(pool_->heaps()[0].peak_used_bytes, 1024u);
  EXPECT_TRUE(pool_->release(*served));
  EXPECT_TRUE(pool_->release(blocker));
  expect_identities(*pool_);
}

TEST_F(MemoryPoolInterleavingTest, ResetBetweenExhaustionAndFallbackKeepsThemTogether) {
  once(device_->on_allocate_direct, [&] { pool_->reset_statistics(); });
  const Allocation fallback = pool_->allocate(9 * kGranule);
  EXPECT_EQ(pool_->statistics().fallback_allocations, 1u);
  EXPECT_EQ(pool_->statistics().exhaustion_events, 1u);
  EXPECT_TRUE(pool_->release(fallback));
}

TEST_F(MemoryPoolInterleavingTest, DeviceIsAskedAndRecordsAreLoggedWithNoLockHeldThatOtherCallsNeed) {
  const auto use_pool = [this] {
    static_cast<void>(pool_->statistics());
    static_cast<void>(pool_->heaps());
    static_cast<void>(pool_->find_array(1));
    pool_->reset_statistics();
    if (const auto allocation = pool_->is_closed() ? std::nullopt : pool_->try_allocate(1)) {
      EXPECT_TRUE(pool_->release(*allocation));
    }
  };
  int records = 0;
  set_log_sink([&](LogLevel, std::string_view) {
    ++records;
    use_pool();
    pool_->trim();
  });
  const Allocation small = pool_->allocate(1);
  once(device_->on_allocate_direct, use_pool);
  const Allocation fallback = pool_->allocate(9 * kGranule);  // logs the exhaustion
  const Allocation large = pool_->allocate(2 * kGranule);
  ASSERT_TRUE(pool_->release(large));
  device_->simulated().fail(DeviceCall::decommit, 0, 1);
  pool_->trim();   // logs the refusal
  pool_->close();  // logs the leaks
  EXPECT_GE(records, 6);
  EXPECT_TRUE(pool_->release(small));
  EXPECT_TRUE(pool_->release(fallback));
}

}  // namespace
}  // namespace tierpool
