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
  FallbackAllocations fallbacks_{device_, true};
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
  FallbackAllocations fallbacks(device, true);
  Allocation request;
  request.requested_bytes = 1000;
  ASSERT_TRUE(fallbacks.take(request, 256, true));
  EXPECT_EQ(request.dirty_bytes, 1024u);
  EXPECT_TRUE(fallbacks.release(request));
}

TEST_F(FallbackAllocationsTest, EveryCountedAllocationIsAnExhaustion) {
  const Allocation allocation = take(1000);
  FallbackStatistics now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.allocations, 1u);
  EXPECT_EQ(now.counters.live_bytes, 1024u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  fallbacks_.count_exhaustion();
  EXPECT_TRUE(fallbacks_.release(allocation));
  now = fallbacks_.statistics();
  EXPECT_EQ(now.counters.deallocations, 1u);
  EXPECT_EQ(now.counters.live_bytes, 0u);
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
  EXPECT_EQ(now.counters.live(), 1u);
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
  EXPECT_FALSE(fallbacks_.release(stale));
  EXPECT_TRUE(fallbacks_.release(allocation));
  EXPECT_FALSE(fallbacks_.release(allocation));
  EXPECT_FALSE(fallbacks_.release(Allocation{}));
  EXPECT_EQ(fallbacks_.statistics().counters.deallocations, 1u);
  EXPECT_EQ(device_.direct_bytes(), 0u);
  EXPECT_EQ(device_.misuse_count(), 0u);
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
  EXPECT_TRUE(fallbacks_.release(found));
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
  EXPECT_EQ(now.counters.live_bytes, 1024u);
  EXPECT_TRUE(fallbacks_.release(allocation));
  EXPECT_EQ(fallbacks_.statistics().counters.deallocations, 1u);
}

TEST_F(FallbackAllocationsTest, WithoutTrackingOnlyWhatIsLiveIsKnown) {
  FallbackAllocations untracked(device_, false);
  Allocation request;
  request.requested_bytes = 1000;
  ASSERT_TRUE(untracked.take(request, 256, true));
  untracked.count_exhaustion();
  FallbackStatistics now = untracked.statistics();
  EXPECT_EQ(now.counters.allocations, 0u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.counters.live(), 1u);
  EXPECT_TRUE(untracked.release(request));
  now = untracked.statistics();
  EXPECT_EQ(now.counters.deallocations, 0u);
  EXPECT_EQ(now.counters.live(), 0u);
}

}  // namespace
}  // namespace tierpool
