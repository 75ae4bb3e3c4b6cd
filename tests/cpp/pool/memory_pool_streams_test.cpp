// The order of streams, on streams that stand still until a test advances them.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/stream_pool_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::message_of;

class MemoryPoolStreamsTest : public testing::StreamPoolTest {};

TEST_F(MemoryPoolStreamsTest, EveryStreamHasOneLaneAndTheDefaultStreamHasTheHomeLane) {
  MemoryPool& pool = build_pool();
  EXPECT_EQ(&pool.lane(kDefaultStream), &pool);
  EXPECT_EQ(&pool.lane(kLegacyStream), &pool);
  MemoryPool& lane = pool.lane(a_);
  EXPECT_NE(&lane, &pool);
  EXPECT_EQ(&pool.lane(a_), &lane);
  EXPECT_NE(&pool.lane(b_), &lane);
  EXPECT_TRUE(pool.owns_lane(lane));
  EXPECT_FALSE(pool.owns_lane(*MemoryPool::create(pool.config(), device_)));
  EXPECT_EQ(pool.statistics().stream_lanes, 3u);
}

TEST_F(MemoryPoolStreamsTest, PerThreadStreamIsAnotherOneOnEveryThread) {
  MemoryPool& pool = build_pool();
  MemoryPool& here = pool.lane(kPerThreadStream);
  MemoryPool* there = nullptr;
  std::thread([&] { there = &pool.lane(kPerThreadStream); }).join();
  EXPECT_EQ(&pool.lane(kPerThreadStream), &here);
  EXPECT_NE(there, &here);
  EXPECT_NE(&here, &pool);
}

TEST_F(MemoryPoolStreamsTest, SameStreamReuseIsImmediateAndJoinsNeighbours) {
  MemoryPool& lane = build_pool().lane(a_);
  const Allocation first = lane.allocate(8 * kGranule);
  const Allocation second = lane.allocate(8 * kGranule);
  keep_busy(a_);
  ASSERT_TRUE(lane.release(first, a_));
  ASSERT_TRUE(lane.release(second));
  const Allocation both = keep(lane.allocate(16 * kGranule));
  EXPECT_EQ(both.address, std::min(first.address, second.address));
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
  EXPECT_TRUE(lane.release(both));
}

TEST_F(MemoryPoolStreamsTest, MagazinesRecordNothing) {
  MemoryPool& lane = build_pool([](PoolConfig& config) { config.magazines = true; }).lane(a_);
  ASSERT_TRUE(lane.release(lane.allocate(kGranule / 64), a_));
  const std::uint64_t recorded = streams().call_count(StreamCall::record_event);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(lane.release(lane.allocate(kGranule / 64), a_));
    ASSERT_TRUE(lane.release(lane.allocate(kGranule / 64)));
  }
  EXPECT_EQ(streams().call_count(StreamCall::record_event), recorded);
}

TEST_F(MemoryPoolStreamsTest, OtherStreamsReleaseIsPendingUntilItsEventIsComplete) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(a_);
  const Allocation allocation = lane.allocate(kGranule);
  keep_busy(b_);
  ASSERT_TRUE(lane.release(allocation, b_));
  EXPECT_FALSE(lane.release(allocation, b_)) << "released twice";
  EXPECT_EQ(pending_bytes(), kGranule);
  EXPECT_EQ(pool.statistics().active_allocations, 0u);
  expect_identities(pool);
  const Allocation other = lane.allocate(kGranule);
  EXPECT_NE(other.address, allocation.address);
  run(b_);
  EXPECT_TRUE(pool.poll_pending());
  EXPECT_EQ(pending_bytes(), 0u);
  const Allocation again = lane.allocate(kGranule);
  EXPECT_EQ(again.address, allocation.address);
  EXPECT_TRUE(lane.release(other));
  EXPECT_TRUE(lane.release(again));
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamsTest, ReleaseBehindAnIdleStreamIsImmediate) {
  MemoryPool& lane = build_pool().lane(a_);
  const Allocation allocation = lane.allocate(kGranule);
  ASSERT_TRUE(lane.release(allocation, b_));
  EXPECT_EQ(pending_bytes(), 0u);
}

TEST_F(MemoryPoolStreamsTest, RecordedStreamsAllHaveToFinish) {
  MemoryPool& pool = build_pool();
  Allocation allocation = pool.allocate(kGranule);
  const Allocation copy = allocation;
  for (const StreamHandle stream : {a_, b_, a_, kDefaultStream}) {
    ASSERT_TRUE(pool.record_stream(allocation, stream));
  }
  EXPECT_FALSE(pool.release(copy)) << "a copy from before knows nothing of the streams";
  keep_busy(a_);
  keep_busy(b_);
  ASSERT_TRUE(pool.release(allocation));
  EXPECT_FALSE(pool.release(allocation));
  EXPECT_FALSE(pool.record_stream(allocation, a_));
  run(b_);
  EXPECT_FALSE(pool.poll_pending());
  run(a_);
  EXPECT_TRUE(pool.poll_pending());
  EXPECT_EQ(pending_bytes(), 0u);
}

TEST_F(MemoryPoolStreamsTest, FallbacksWaitForTheirStreamToo) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(a_);
  const Allocation fallback = lane.allocate(17 * kGranule);
  ASSERT_TRUE(fallback.is_fallback());
  keep_busy(a_);
  ASSERT_TRUE(lane.release(fallback, a_));
  EXPECT_EQ(device_->direct_bytes(), 17 * kGranule);
  EXPECT_EQ(pool.statistics().fallback_pending_bytes, 17 * kGranule);
  run(a_);
  EXPECT_TRUE(pool.poll_pending());
  EXPECT_EQ(device_->direct_bytes(), 0u);
  EXPECT_EQ(pool.statistics().peak_taken_bytes, 17 * kGranule);
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().peak_taken_bytes, 0u);
}

TEST_F(MemoryPoolStreamsTest, FallbacksAreNotGivenBackWhereTheirStreamIsOnlyWaitedFor) {
  MemoryPool& lane = build_pool().lane(a_);
  const Allocation all = lane.allocate(16 * kGranule);
  const Allocation fallback = lane.allocate(kGranule);
  ASSERT_TRUE(fallback.is_fallback());
  streams().enqueue(b_, [&] { device_->use(fallback.address, kGranule); });
  ASSERT_TRUE(lane.release(fallback, b_));
  const Allocation other = lane.allocate(kGranule);
  EXPECT_TRUE(other.is_fallback());
  run(b_);
  EXPECT_EQ(device_->misuse_count(), 0u);
  EXPECT_TRUE(lane.release(all, a_));
  EXPECT_TRUE(lane.release(other, a_));
}

TEST_F(MemoryPoolStreamsTest, LanesTogetherCommitNoMoreThanOneAloneCould) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(a_);
  keep(pool.allocate(10 * kGranule));
  const Allocation first = lane.allocate(6 * kGranule);
  EXPECT_EQ(device_->committed_bytes(), 16 * kGranule);
  EXPECT_THROW(static_cast<void>(lane.allocate(kGranule)), OutOfMemoryError);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.capacity_bytes, 16 * kGranule);
  EXPECT_EQ(now.used_bytes, 16 * kGranule);
  EXPECT_EQ(now.free_bytes, 0u);
  EXPECT_TRUE(lane.release(first));
}

TEST_F(MemoryPoolStreamsTest, MemoryMovesFromAnIdleLaneAtOnceAndFromABusyOneByWaiting) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& from = pool.lane(a_);
  MemoryPool& to = pool.lane(b_);
  ASSERT_TRUE(from.release(from.allocate(16 * kGranule), a_));
  const Allocation moved = to.allocate(16 * kGranule);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
  keep_busy(b_);
  ASSERT_TRUE(to.release(moved, b_));
  const Allocation back = from.allocate(16 * kGranule);
  EXPECT_EQ(streams().queued_count(), 0u) << "what the memory was used for had to run first";
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 1u);
  EXPECT_TRUE(from.release(back));
}

TEST_F(MemoryPoolStreamsTest, PressureOrdersAStreamBehindItsPendingMemoryInsteadOfWaiting) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(a_);
  const Allocation allocation = lane.allocate(16 * kGranule);
  std::string ran;
  streams().enqueue(b_, [&] { ran += "b"; });
  ASSERT_TRUE(lane.release(allocation, b_));
  const Allocation again = lane.allocate(16 * kGranule);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
  streams().enqueue(a_, [&] { ran += "a"; });
  EXPECT_FALSE(streams().advance(a_));
  run(b_);
  run(a_);
  EXPECT_EQ(ran, "ba");
  EXPECT_TRUE(lane.release(again));
}

TEST_F(MemoryPoolStreamsTest, RequestWaitsForMemoryThatAnotherThreadIsAboutToBringBack) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(a_);
  std::promise<void> begun;
  std::promise<void> end;
  streams().enqueue(b_, [&] {
    begun.set_value();
    end.get_future().wait();
  });
  streams().fail(StreamCall::wait_event);  // so that events are waited for
  ASSERT_TRUE(lane.release(lane.allocate(16 * kGranule), b_));
  std::thread first([&] { EXPECT_TRUE(lane.release(lane.allocate(4 * kGranule))); });
  begun.get_future().wait();
  Allocation allocation;
  EXPECT_EQ(lane.serve({.bytes = kGranule, .may_block = false}, allocation), AllocationOutcome::would_block);
  std::thread device([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    end.set_value();
  });
  EXPECT_EQ(lane.serve({.bytes = 4 * kGranule}, allocation), AllocationOutcome::served);
  first.join();
  device.join();
  EXPECT_TRUE(lane.release(allocation));
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamsTest, RequestThatMustNotBlockSaysSoUnderPressure) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& from = pool.lane(a_);
  ASSERT_TRUE(from.release(from.allocate(16 * kGranule)));
  Allocation allocation;
  MemoryPool& to = pool.lane(b_);
  EXPECT_EQ(to.serve({.bytes = kGranule, .may_block = false}, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(to.serve({.bytes = kGranule}, allocation), AllocationOutcome::served);
  EXPECT_FALSE(allocation.is_fallback());
  EXPECT_TRUE(to.release(allocation));
}

TEST_F(MemoryPoolStreamsTest, CapturedStreamIsRefusedClearly) {
  MemoryPool& pool = build_pool();
  const Allocation own = pool.lane(a_).allocate(kGranule);
  streams().begin_capture(a_);
  AllocationOutcome refusal = AllocationOutcome::served;
  EXPECT_EQ(pool.lane(a_, refusal), nullptr);
  EXPECT_EQ(refusal, AllocationOutcome::capturing);
  const std::string message = message_of<DeviceError>([&] { static_cast<void>(pool.lane(a_)); });
  EXPECT_NE(message.find("captured into a graph"), std::string::npos) << message;
  EXPECT_TRUE(pool.lane(kDefaultStream).release(pool.allocate(kGranule)));
  streams().end_capture(a_);
  EXPECT_TRUE(pool.lane(a_).release(own));
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamsTest, LaneThatCannotBeMadeIsOutOfMemory) {
  MemoryPool& pool = build_pool();
  device_->fail(DeviceCall::reserve);
  EXPECT_THROW(static_cast<void>(pool.lane(a_)), OutOfMemoryError);
  device_->recover();
  EXPECT_TRUE(pool.lane(a_).release(pool.lane(a_).allocate(1)));
}

TEST_F(MemoryPoolStreamsTest, CloseWaitsForPendingMemoryAndLanesGoWithTheirAllocations) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(a_);
  const Allocation pending = lane.allocate(kGranule);
  const Allocation live = lane.allocate(kGranule);
  keep_busy(b_);
  ASSERT_TRUE(lane.release(pending, b_));
  pool.close();
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_THROW(static_cast<void>(pool.lane(b_)), PoolClosedError);
  EXPECT_THROW(static_cast<void>(lane.allocate(1)), PoolClosedError);
  EXPECT_EQ(pool.statistics().active_allocations, 1u);
  EXPECT_EQ(device_->reserved_bytes(), 16 * kGranule);
  keep_busy(a_);
  EXPECT_TRUE(lane.release(live));
  EXPECT_EQ(streams().queued_count(), 0u) << "memory must not go while a stream may use it";
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

TEST_F(MemoryPoolStreamsTest, DroppedPoolLivesInItsLanesAllocations) {
  MemoryPool& lane = build_pool().lane(a_);
  Allocation live = lane.allocate(kGranule);
  const Allocation pending = lane.allocate(kGranule);
  ASSERT_TRUE(lane.record_stream(live, b_));
  keep_busy(b_);
  ASSERT_TRUE(lane.release(pending, b_));
  pool_.reset();
  EXPECT_EQ(device_->committed_bytes(), 2 * kGranule);
  keep_busy(b_);
  EXPECT_TRUE(lane.release(live));
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

TEST_F(MemoryPoolStreamsTest, EventsAreRecycledAndGoWithThePool) {
  {
    MemoryPool& pool = build_pool();
    for (int round = 0; round < 100; ++round) {
      const Allocation allocation = pool.allocate(kGranule);
      keep_busy(a_);
      ASSERT_TRUE(pool.release(allocation, a_));
      run(a_);
    }
    EXPECT_LE(streams().event_count(), 2u);
    pool_.reset();
  }
  EXPECT_EQ(streams().event_count(), 0u);
}

TEST_F(MemoryPoolStreamsTest, WithoutEventsAReleaseIsSettledByTheDevice) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  const Allocation allocation = pool.allocate(16 * kGranule);
  streams().fail(StreamCall::create_event);
  keep_busy(a_);
  ASSERT_TRUE(pool.release(allocation, a_));
  EXPECT_EQ(pending_bytes(), 16 * kGranule);
  const Allocation again = pool.allocate(16 * kGranule);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_TRUE(pool.release(again));
}

TEST_F(MemoryPoolStreamsTest, TrimWaitsForTheStreamsOfWhatItGivesBack) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(a_);
  const Allocation allocation = lane.allocate(4 * kGranule);
  keep_busy(a_);
  ASSERT_TRUE(lane.release(allocation));
  EXPECT_EQ(pool.trim(), 4 * kGranule);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_EQ(pool.statistics().committed_bytes, 0u);
}

TEST_F(MemoryPoolStreamsTest, GrowthComesAfterWhatMagazinesHold) {
  MemoryPool& pool = build_pool([](PoolConfig& config) { config.magazines = true; });
  std::vector<Allocation> batch;
  for (int i = 0; i < 64; ++i) {
    batch.push_back(pool.allocate(kGranule / 64));
  }
  EXPECT_EQ(pool.release_batch(batch), batch.size());
  const std::uint64_t committed = device_->committed_bytes();
  const Allocation joined = pool.allocate(committed - kGranule / 64);
  EXPECT_EQ(device_->committed_bytes(), committed);
  EXPECT_TRUE(pool.release(joined));
}

TEST_F(MemoryPoolStreamsTest, HeapsNameTheirStreamAndCountsAreResetEverywhere) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(a_);
  const Allocation allocation = keep(lane.allocate(kGranule));
  const std::vector<HeapStatistics> heaps = pool.heaps();
  ASSERT_EQ(heaps.size(), 2u);
  EXPECT_EQ(heaps[0].stream, kDefaultStream);
  EXPECT_EQ(heaps[1].stream, a_);
  EXPECT_EQ(heaps[1].index, 1u);
  EXPECT_EQ(pool.statistics().total_allocations, 1u);
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().total_allocations, 0u);
  EXPECT_EQ(pool.statistics().active_allocations, 1u);
  EXPECT_TRUE(lane.release(allocation));
}

}  // namespace
}  // namespace tierpool
