#include "tierpool/pool/heap.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "support/hooked_device.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;
constexpr std::uint64_t kCapacity = 8 * kGranule;

class HeapTest : public ::testing::Test {
 protected:
  [[nodiscard]] static Allocation request_for(std::uint64_t bytes, Holder holder = Holder::buffer) {
    Allocation request;
    request.requested_bytes = bytes;
    request.holder = holder;
    return request;
  }
  [[nodiscard]] Allocation take(std::uint64_t bytes, Holder holder = Holder::buffer) {
    Allocation request = request_for(bytes, holder);
    EXPECT_EQ(heap_.take(request, {}), Heap::TakeResult::taken);
    return request;
  }
  [[nodiscard]] static HeapStatistics statistics(const Heap& heap) { return heap.statistics({}, {}); }
  [[nodiscard]] bool release(Heap& heap, const Allocation& allocation) {
    const ReleaseResult result = heap.release(allocation, {ends_late_});
    EXPECT_EQ(ends_late_, 0u);
    return result == ReleaseResult::released;
  }
  [[nodiscard]] std::uint64_t used() const { return statistics(heap_).used_bytes; }

  SimulatedDevice device_{kGiB, kGranule};
  UsedBytes used_;
  std::atomic<std::uint64_t> ends_late_{0};
  Heap heap_{device_, used_, {.index = 3, .capacity_bytes = kCapacity}};
  bool flag_ = false;
};

TEST_F(HeapTest, ReservesWithoutCommitting) {
  EXPECT_EQ(device_.reserved_bytes(), kCapacity);
  EXPECT_EQ(device_.committed_bytes(), 0u);
  EXPECT_EQ(heap_.view().largest_free_bytes, kCapacity);
}

TEST_F(HeapTest, TakenBlockIsCommittedInsideTheHeapAndCounted) {
  const Allocation allocation = take(1000);
  EXPECT_TRUE(heap_.contains(allocation.address));
  EXPECT_EQ(allocation.heap_index, 3u);
  EXPECT_EQ(allocation.requested_bytes, 1000u);
  EXPECT_EQ(allocation.block_bytes, 1024u);
  EXPECT_FALSE(allocation.is_fallback());
  EXPECT_EQ(device_.committed_bytes(), kGranule);
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.counters.allocations, 1u);
  EXPECT_EQ(now.counters.requested_bytes, 1000u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.free_bytes, kCapacity - 1024);
  EXPECT_EQ(now.committed_bytes, kGranule);
  EXPECT_EQ(used_.used(), 1024u);
}

TEST_F(HeapTest, BlockThatMustNotWaitForACommitIsLeftUntaken) {
  Allocation request = request_for(1000);
  EXPECT_EQ(heap_.take(request, {.may_commit = false}), Heap::TakeResult::needs_commit);
  EXPECT_EQ(statistics(heap_).free_bytes, kCapacity);
  EXPECT_EQ(device_.committed_bytes(), 0u);
  heap_.warm_up(0, kGranule, flag_);
  EXPECT_EQ(heap_.take(request, {.may_commit = false}), Heap::TakeResult::taken);
}

TEST_F(HeapTest, FailedCommitUndoesTheBlockAndCountsNothing) {
  device_.fail(DeviceCall::commit, 0, 1);
  Allocation request = request_for(3 * kGranule);
  EXPECT_EQ(heap_.take(request, {}), Heap::TakeResult::full);
  EXPECT_FALSE(request) << "a refused request must not look served";
  EXPECT_EQ(request.requested_bytes, 3 * kGranule);
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.counters.allocations, 0u);
  EXPECT_EQ(now.counters.deallocations, 0u);
  EXPECT_EQ(now.free_bytes, kCapacity);
  EXPECT_EQ(now.largest_free_bytes, kCapacity);
  EXPECT_EQ(now.peak_used_bytes, 0u);
  EXPECT_EQ(used_.used(), 0u);
  EXPECT_EQ(used_.peak(), 0u);
  EXPECT_TRUE(take(3 * kGranule));
}

TEST_F(HeapTest, UncountedBlocksAreUnknownToStatisticsUntilCounted) {
  Allocation kept = request_for(1000);
  Allocation dropped = request_for(5000);
  ASSERT_EQ(heap_.take(kept, {.counted = false}), Heap::TakeResult::taken);
  ASSERT_EQ(heap_.take(dropped, {.counted = false}), Heap::TakeResult::taken);
  EXPECT_EQ(statistics(heap_).counters.allocations, 0u);
  EXPECT_EQ(used(), 0u);
  heap_.undo(dropped);
  heap_.count(kept);
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.counters.allocations, 1u);
  EXPECT_EQ(now.counters.deallocations, 0u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.peak_used_bytes, 1024u);
  EXPECT_EQ(now.counters.largest_request_bytes, 1000u);
}

TEST_F(HeapTest, ReleaseTakesEachAllocationOnce) {
  const Allocation allocation = take(1000);
  EXPECT_TRUE(release(heap_, allocation));
  EXPECT_FALSE(release(heap_, allocation));
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.counters.deallocations, 1u);
  EXPECT_EQ(now.live_count, 0u);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(used_.used(), 0u);
  EXPECT_EQ(used_.peak(), 1024u);
}

TEST_F(HeapTest, ReleaseRefusesForeignAndForgedAllocations) {
  UsedBytes other_used;
  Heap other(device_, other_used, {.index = 3, .capacity_bytes = kCapacity});
  Allocation foreign = request_for(1000);
  ASSERT_EQ(other.take(foreign, {}), Heap::TakeResult::taken);
  const Allocation own = take(1000);
  ASSERT_EQ(foreign.node, own.node);
  ASSERT_EQ(foreign.generation, own.generation);
  EXPECT_FALSE(release(heap_, foreign));
  Allocation shifted = own;
  shifted.address += kUnitBytes;
  EXPECT_FALSE(release(heap_, shifted));
  EXPECT_FALSE(release(heap_, Allocation{}));
  EXPECT_EQ(statistics(heap_).live_count, 1u);
  EXPECT_TRUE(release(other, foreign));
}

TEST_F(HeapTest, ArraysAreFoundByTheirAddressAndBuffersAreNot) {
  const Allocation array = take(1000, Holder::array);
  const Allocation buffer = take(1000, Holder::buffer);
  const Allocation found = heap_.find_array(array.address);
  ASSERT_TRUE(found);
  EXPECT_EQ(found.node, array.node);
  EXPECT_EQ(found.generation, array.generation);
  EXPECT_EQ(found.block_bytes, array.block_bytes);
  EXPECT_FALSE(heap_.find_array(array.address + kUnitBytes));
  EXPECT_FALSE(heap_.find_array(array.address + 1));
  EXPECT_FALSE(heap_.find_array(buffer.address));
  EXPECT_FALSE(heap_.find_array(array.address + kCapacity));
  EXPECT_FALSE(heap_.find_array(array.address - kUnitBytes));
  EXPECT_EQ(statistics(heap_).counters.live_arrays, 1u);
  EXPECT_TRUE(release(heap_, found));
  EXPECT_FALSE(heap_.find_array(array.address));
  EXPECT_EQ(statistics(heap_).counters.live_arrays, 0u);
}

TEST_F(HeapTest, BufferInTheFormerPlaceOfAnArrayIsNotFoundAsOne) {
  const Allocation array = take(1000, Holder::array);
  ASSERT_TRUE(release(heap_, array));
  const Allocation buffer = take(1000);
  ASSERT_EQ(buffer.address, array.address);
  EXPECT_FALSE(heap_.find_array(array.address));
}

TEST_F(HeapTest, MemoryNeverHandedOutIsKnownToBeZero) {
  const Allocation first = take(1000);
  EXPECT_EQ(first.dirty_bytes, 0u);
  ASSERT_TRUE(release(heap_, first));
  const Allocation larger = take(4096);
  ASSERT_EQ(larger.address, first.address);
  EXPECT_EQ(larger.dirty_bytes, 1024u);
  EXPECT_EQ(take(100).dirty_bytes, 0u);
}

TEST(Heap, NothingIsKnownToBeZeroOnADeviceThatDoesNotSaySo) {
  testing::HookedDevice device(kGiB, false);
  UsedBytes used;
  Heap heap(device, used, {.capacity_bytes = kCapacity});
  Allocation request;
  request.requested_bytes = 1000;
  ASSERT_EQ(heap.take(request, {}), Heap::TakeResult::taken);
  EXPECT_EQ(request.dirty_bytes, request.block_bytes);
}

TEST_F(HeapTest, WarmUpCommitsAndCountsInNoAllocationStatistic) {
  EXPECT_EQ(heap_.warm_up(0, 3 * kGranule, flag_), 3 * kGranule);
  EXPECT_TRUE(flag_);
  EXPECT_EQ(heap_.warm_up(0, 4 * kGranule, flag_), kGranule);
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.committed_bytes, 4 * kGranule);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(now.peak_used_bytes, 0u);
  EXPECT_EQ(now.counters.allocations, 0u);
  EXPECT_EQ(now.free_block_count, 1u);
}

TEST_F(HeapTest, TrimGivesBackGranulesNoBlockLivesIn) {
  heap_.warm_up(0, kCapacity, flag_);
  const Allocation low = take(kGranule / 2);
  const Allocation middle = take(3 * kGranule);
  const Allocation high = take(kGranule / 2);
  ASSERT_TRUE(release(heap_, middle));
  bool refused = false;
  EXPECT_EQ(heap_.trim(refused), 2 * kGranule + 4 * kGranule);
  EXPECT_FALSE(refused);
  EXPECT_EQ(device_.committed_bytes(), 2 * kGranule);
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.committed_bytes, 2 * kGranule);
  EXPECT_EQ(now.free_bytes, kCapacity - kGranule);
  EXPECT_EQ(now.peak_used_bytes, 4 * kGranule);
  EXPECT_TRUE(release(heap_, low));
  EXPECT_TRUE(release(heap_, high));
  EXPECT_EQ(heap_.trim(refused), 2 * kGranule);
  EXPECT_EQ(device_.committed_bytes(), 0u);
}

TEST_F(HeapTest, TrimmedRangeIsCommittedAgainWhenTaken) {
  heap_.warm_up(0, kCapacity, flag_);
  bool refused = false;
  ASSERT_EQ(heap_.trim(refused), kCapacity);
  EXPECT_TRUE(take(2 * kGranule));
  EXPECT_EQ(device_.committed_bytes(), 2 * kGranule);
}

TEST(Heap, TrimReachesTheGranuleThatTheCapacityCutsOff) {
  SimulatedDevice device(kGiB, kGranule);
  UsedBytes used;
  const std::uint64_t capacity = kGranule + 10 * kUnitBytes;
  Heap heap(device, used, {.capacity_bytes = capacity});
  bool flag = false;
  heap.warm_up(0, capacity, flag);
  Allocation request;
  request.requested_bytes = kGranule;
  ASSERT_EQ(heap.take(request, {}), Heap::TakeResult::taken);
  EXPECT_EQ(heap.trim(flag), 10 * kUnitBytes);
  EXPECT_EQ(device.committed_bytes(), kGranule);
}

TEST_F(HeapTest, CloseEndsAnEmptyHeapAtOnceAndServesNothingMore) {
  heap_.warm_up(0, kGranule, flag_);
  heap_.close();
  EXPECT_EQ(device_.reserved_bytes(), 0u);
  EXPECT_EQ(statistics(heap_).committed_bytes, 0u);
  EXPECT_EQ(heap_.view().largest_free_bytes, 0u);
  Allocation request = request_for(1000);
  EXPECT_EQ(heap_.take(request, {}), Heap::TakeResult::full);
  EXPECT_EQ(heap_.warm_up(0, kGranule, flag_), 0u);
  EXPECT_FALSE(flag_);
  bool refused = false;
  EXPECT_EQ(heap_.trim(refused), 0u);
  heap_.close();
  EXPECT_EQ(device_.misuse_count(), 0u);
}

TEST_F(HeapTest, ClosedHeapGoesWithItsLastBlock) {
  const Allocation first = take(1000);
  const Allocation second = take(1000);
  heap_.close();
  EXPECT_TRUE(release(heap_, first));
  EXPECT_EQ(device_.reserved_bytes(), kCapacity);
  EXPECT_TRUE(release(heap_, second));
  EXPECT_EQ(device_.reserved_bytes(), 0u);
  EXPECT_FALSE(release(heap_, second));
  EXPECT_EQ(device_.misuse_count(), 0u);
}

TEST_F(HeapTest, HeapThatCannotBeReservedThrows) {
  device_.fail(DeviceCall::reserve);
  UsedBytes used;
  EXPECT_THROW(Heap(device_, used, {.capacity_bytes = kCapacity}), DeviceError);
}

TEST_F(HeapTest, ResetForgetsThePeaksAndKeepsWhatIsLive) {
  const Allocation kept = take(1000);
  ASSERT_TRUE(release(heap_, take(kGranule)));
  heap_.reset_statistics();
  const HeapStatistics now = statistics(heap_);
  EXPECT_EQ(now.counters.largest_request_bytes, 0u);
  EXPECT_EQ(now.counters.allocations, 2u) << "events are counted for good; the pool keeps the baseline";
  EXPECT_EQ(now.live_count, 1u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.peak_used_bytes, 1024u);
  ASSERT_TRUE(release(heap_, kept));
}

TEST_F(HeapTest, BlocksForAMagazineComeFromCommittedMemoryOnlyAndAreNobodysUntilTheyAreGivenBack) {
  const Allocation first = take(1000);  // commits one granule
  std::vector<ParkedBlock> blocks(10);
  EXPECT_EQ(heap_.take_parked(kGranule / 4, 0, blocks), 3u);
  blocks.resize(3);
  const HeapStatistics now = heap_.statistics({}, {.count = 3, .bytes = 3 * kGranule / 4});
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.cached_bytes, 3 * kGranule / 4);
  EXPECT_EQ(now.live_count, 1u);
  EXPECT_EQ(device_.committed_bytes(), kGranule);
  heap_.give_back(blocks);
  EXPECT_EQ(used(), 1024u);
  EXPECT_TRUE(release(heap_, first));
  EXPECT_EQ(statistics(heap_).free_block_count, 1u);
}

TEST_F(HeapTest, ParkedAllocationIsStaleAndItsBlockStillTaken) {
  const Allocation allocation = take(1000);
  const ParkedBlock parked = heap_.park(allocation);
  EXPECT_FALSE(heap_.is_live(allocation));
  EXPECT_FALSE(release(heap_, allocation));
  EXPECT_EQ(parked.address, allocation.address);
  EXPECT_NE(take(1000).address, parked.address);
  heap_.give_back({&parked, 1});
  EXPECT_EQ(take(1000).address, parked.address);
}

TEST(UsedBytes, PeakIsTheMostSinceReset) {
  UsedBytes used;
  used.add(100);
  used.add(50);
  used.subtract(120);
  EXPECT_EQ(used.used(), 30u);
  EXPECT_EQ(used.peak(), 150u);
  used.reset_peak();
  EXPECT_EQ(used.peak(), 30u);
  used.add(1);
  EXPECT_EQ(used.peak(), 31u);
}

TEST(UsedBytes, PeakOfTheWholeIsOfAllPartsAtOneMoment) {
  UsedBytes whole;
  UsedBytes part(&whole);
  part.add(100);
  part.subtract(100);
  whole.add(70);
  part.add(50);
  EXPECT_EQ(whole.used(), 120u);
  EXPECT_EQ(whole.peak(), 120u) << "not 170: the first hundred were gone";
  EXPECT_EQ(part.used(), 50u);
  EXPECT_EQ(part.peak(), 100u);
  part.reset_peak();
  EXPECT_EQ(part.peak(), 50u);
  EXPECT_EQ(whole.peak(), 120u);
}

}  // namespace
}  // namespace tierpool
