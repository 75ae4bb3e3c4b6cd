#include "tierpool/pool/fallback_allocations.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "support/hooked_device.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

class FallbackAllocationsTest : public ::testing::Test {
 protected:
  [[nodiscard]] Allocation take(std::uint64_t bytes, Holder holder = Holder::buffer, bool counted = true) {
    Allocation request;
    request.requested_bytes = bytes;
    request.holder = holder;
    EXPECT_TRUE(fallbacks_.take(request, 4096, counted));
    return request;
  }
  SimulatedDevice device_{kGiB};
  DeviceMemory memory_;
  UsedBytes taken_;
  FallbackAllocations fallbacks_{device_, true, memory_, taken_};
};

TEST_F(FallbackAllocationsTest, TakesWholeUnitsFromTheDevice) {
  const Allocation allocation = take(1000);
  EXPECT_TRUE(allocation.is_fallback());
  EXPECT_EQ(allocation.address % 4096, 0u);
  EXPECT_EQ(allocation.block_bytes, 1024u);
  EXPECT_EQ(allocation.dirty_bytes, 0u);
  EXPECT_EQ(device_.direct_bytes(), 1024u);
  EXPECT_EQ(take(0).block_bytes, kUnitBytes);
}

TEST_F(FallbackAllocationsTest, MemoryOfADeviceThatDoesNotSayZeroIsDirty) {
  testing::HookedDevice device(kGiB, false);
  DeviceMemory memory;
  UsedBytes taken;
  FallbackAllocations fallbacks(device, true, memory, taken);
  Allocation request;
  request.requested_bytes = 1000;
  ASSERT_TRUE(fallbacks.take(request, 256, true));
  EXPECT_EQ(request.dirty_bytes, 1024u);
  EXPECT_EQ(fallbacks.release(request), ReleaseResult::released);
}

TEST_F(FallbackAllocationsTest, WhatTheDeviceGaveIsTakenUntilItHasItBack) {
  const Allocation released = take(1000);
  const Allocation deferred = take(2000);
  EXPECT_EQ(taken_.used(), 1024u + 2048u);
  EXPECT_EQ(fallbacks_.release(released), ReleaseResult::released);
  const FallbackAllocations::Taken kept = fallbacks_.defer(deferred);
  EXPECT_EQ(taken_.used(), 2048u);
  fallbacks_.free(kept);
  EXPECT_EQ(taken_.used(), 0u);
  EXPECT_EQ(taken_.peak(), 1024u + 2048u);
}

TEST_F(FallbackAllocationsTest, EveryCountedAllocationIsAnExhaustion) {
  const Allocation allocation = take(1000);
  FallbackStatistics now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.allocations, 1u);
  EXPECT_EQ(now.live_bytes, 1024u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  fallbacks_.count_exhaustion();
  EXPECT_EQ(fallbacks_.release(allocation), ReleaseResult::released);
  now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.deallocations, 1u);
  EXPECT_EQ(now.live_bytes, 0u);
  EXPECT_EQ(now.exhaustion_events, 2u);
}

TEST_F(FallbackAllocationsTest, UncountedAllocationLeavesItsExhaustionWhicheverWayItGoes) {
  const Allocation kept = take(1000, Holder::buffer, false);
  const Allocation dropped = take(1000, Holder::buffer, false);
  EXPECT_EQ(fallbacks_.statistics().exhaustion_events, 0u);
  fallbacks_.count(kept);
  fallbacks_.undo(dropped);
  const FallbackStatistics now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.allocations, 1u);
  EXPECT_EQ(now.counters.deallocations, 0u);
  EXPECT_EQ(now.live_count, 1u);
  EXPECT_EQ(now.exhaustion_events, 2u);
  EXPECT_EQ(device_.direct_bytes(), 1024u);
}

TEST_F(FallbackAllocationsTest, FailsWithTheDeviceAndForImpossibleSizes) {
  Allocation request;
  for (const std::uint64_t bytes :
       {2 * kGiB, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) + 1, std::numeric_limits<std::uint64_t>::max()}) {
    request.requested_bytes = bytes;
    EXPECT_FALSE(fallbacks_.take(request, 256, true)) << bytes;
    EXPECT_FALSE(request);
  }
  device_.fail(DeviceCall::allocate_direct);
  request.requested_bytes = 1000;
  EXPECT_FALSE(fallbacks_.take(request, 256, true));
  EXPECT_EQ(fallbacks_.statistics().counters.allocations, 0u);
  EXPECT_EQ(device_.direct_bytes(), 0u);
}

TEST_F(FallbackAllocationsTest, ReleaseTakesEachAllocationOnce) {
  const Allocation allocation = take(1000);
  Allocation stale = allocation;
  ++stale.generation;
  EXPECT_EQ(fallbacks_.release(stale), ReleaseResult::stale);
  EXPECT_EQ(fallbacks_.release(allocation), ReleaseResult::released);
  EXPECT_EQ(fallbacks_.release(allocation), ReleaseResult::stale);
  EXPECT_EQ(fallbacks_.release(Allocation{}), ReleaseResult::stale);
  EXPECT_EQ(fallbacks_.statistics().counters.deallocations, 1u);
  EXPECT_EQ(device_.direct_bytes(), 0u);
  EXPECT_EQ(device_.misuse_count(), 0u);
}

TEST_F(FallbackAllocationsTest, ReleasesAfterOrphanSayThatTheyAreOrphans) {
  const Allocation before = take(1000);
  const Allocation orphan = take(1000);
  EXPECT_EQ(fallbacks_.release(before), ReleaseResult::released);
  EXPECT_EQ(fallbacks_.orphan(), 1u);
  EXPECT_EQ(fallbacks_.release(orphan), ReleaseResult::released_orphan);
  EXPECT_EQ(fallbacks_.release(orphan), ReleaseResult::stale);
}

TEST_F(FallbackAllocationsTest, ArraysAreFoundByTheirAddressAndBuffersAreNot) {
  EXPECT_FALSE(fallbacks_.find_array(1));
  const Allocation array = take(1000, Holder::array);
  const Allocation buffer = take(1000);
  const Allocation found = fallbacks_.find_array(array.address);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found.is_fallback());
  EXPECT_EQ(found.block_bytes, 1024u);
  EXPECT_FALSE(fallbacks_.find_array(buffer.address));
  EXPECT_EQ(fallbacks_.statistics().counters.live_arrays, 1u);
  EXPECT_EQ(fallbacks_.release(found), ReleaseResult::released);
  EXPECT_FALSE(fallbacks_.find_array(array.address));
  EXPECT_EQ(fallbacks_.statistics().counters.live_arrays, 0u);
}

TEST_F(FallbackAllocationsTest, ResetForgetsEventsAndKeepsWhatIsLive) {
  const Allocation allocation = take(1000);
  fallbacks_.reset_statistics();
  FallbackStatistics now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.allocations, 0u);
  EXPECT_EQ(now.counters.requested_bytes, 0u);
  EXPECT_EQ(now.counters.largest_request_bytes, 0u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.live_bytes, 1024u);
  EXPECT_EQ(fallbacks_.release(allocation), ReleaseResult::released);
  EXPECT_EQ(fallbacks_.statistics().counters.deallocations, 1u);
}

TEST_F(FallbackAllocationsTest, WithoutTrackingOnlyWhatIsLiveIsKnown) {
  FallbackAllocations untracked(device_, false, memory_, taken_);
  Allocation request;
  request.requested_bytes = 1000;
  ASSERT_TRUE(untracked.take(request, 256, true));
  untracked.count_exhaustion();
  FallbackStatistics now = untracked.statistics();
  EXPECT_EQ(now.counters.allocations, 0u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.live_count, 1u);
  EXPECT_EQ(untracked.release(request), ReleaseResult::released);
  now = untracked.statistics();
  EXPECT_EQ(now.counters.deallocations, 0u);
  EXPECT_EQ(now.live_count, 0u);
}

}  // namespace
}  // namespace tierpool
