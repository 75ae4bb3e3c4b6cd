// Streams that are destroyed while their lane still has memory: whoever takes it must not name them.
#include <gtest/gtest.h>

#include <cstdint>

#include "support/stream_pool_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::kGranule;

class MemoryPoolStreamLifetimesTest : public testing::StreamPoolTest {};

TEST_F(MemoryPoolStreamLifetimesTest, FallbackReleasedWithoutItsStreamWaitsUntilItIsNamedOrTrimmed) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(a_);
  ASSERT_TRUE(lane.release(lane.allocate(17 * kGranule)));
  EXPECT_FALSE(pool.poll_pending());
  EXPECT_EQ(device_->direct_bytes(), 17 * kGranule);
  const Allocation second = lane.allocate(18 * kGranule);
  EXPECT_EQ(device_->direct_bytes(), 18 * kGranule);
  keep_busy(a_);
  streams().destroy_stream(a_);
  ASSERT_TRUE(lane.release(second));
  EXPECT_EQ(device_->direct_bytes(), 18 * kGranule);
  static_cast<void>(pool.trim());
  EXPECT_EQ(device_->direct_bytes(), 0u);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamLifetimesTest, HandleUsedAgainIsAnotherStream) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& old_lane = pool.lane(a_);
  const Allocation allocation = old_lane.allocate(kGranule);
  keep_busy(a_);
  streams().destroy_stream(a_);
  const StreamHandle reused = streams().create_stream();
  ASSERT_EQ(reused, a_);
  MemoryPool& new_lane = pool.lane(reused);
  EXPECT_NE(&new_lane, &old_lane);
  EXPECT_TRUE(old_lane.release(allocation));
  // What the destroyed stream left to do still runs: only the whole device can tell when.
  const Allocation all = new_lane.allocate(16 * kGranule);
  EXPECT_FALSE(all.is_fallback());
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_TRUE(new_lane.release(all));
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamLifetimesTest, RecordedStreamWhoseHandleIsAnotherSinceIsSettledByTheDevice) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  Allocation allocation = pool.allocate(16 * kGranule);
  ASSERT_TRUE(pool.record_stream(allocation, a_));
  keep_busy(a_);
  streams().destroy_stream(a_);
  ASSERT_EQ(streams().create_stream(), a_);
  ASSERT_TRUE(pool.release(allocation));
  EXPECT_EQ(pending_bytes(), 16 * kGranule);
  EXPECT_FALSE(pool.poll_pending());
  const Allocation again = pool.allocate(16 * kGranule);
  EXPECT_FALSE(again.is_fallback());
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_TRUE(pool.release(again));
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamLifetimesTest, MemoryOfADestroyedStreamMovesWithoutNamingIt) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& old_lane = pool.lane(a_);
  const Allocation first = old_lane.allocate(12 * kGranule);
  const Allocation second = old_lane.allocate(4 * kGranule);
  keep_busy(a_);
  ASSERT_TRUE(old_lane.release(first, a_));
  run(a_);
  streams().destroy_stream(a_);
  MemoryPool& lane = pool.lane(b_);
  const Allocation moved = lane.allocate(12 * kGranule);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u) << "an event behind the release says it all";
  ASSERT_TRUE(old_lane.release(second));
  EXPECT_TRUE(lane.release(lane.allocate(4 * kGranule)));
  EXPECT_GE(streams().call_count(StreamCall::synchronize), 1u) << "no event is behind a release without its stream";
  EXPECT_TRUE(lane.release(moved));
  EXPECT_EQ(pool.trim(), 16 * kGranule);
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamLifetimesTest, UnknownStreamIsRefused) {
  MemoryPool& pool = build_pool();
  EXPECT_THROW(static_cast<void>(pool.lane(0xdead)), DeviceError);
  AllocationOutcome refusal = AllocationOutcome::served;
  EXPECT_EQ(pool.lane(0xdead, refusal), nullptr);
  EXPECT_EQ(refusal, AllocationOutcome::no_streams);
}

}  // namespace
}  // namespace tierpool
