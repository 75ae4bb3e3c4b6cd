// What a request does about memory that is still pending, on its lane or on others, before it fails.
#include <gtest/gtest.h>

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "support/stream_pool_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::message_of;

class MemoryPoolStreamShortageTest : public testing::StreamPoolTest {
 protected:
  MemoryPool& build_limited_pool(std::uint64_t granules) {
    return build_pool([=](PoolConfig& config) { config.max_bytes = granules * kGranule; });
  }
  /// Memory of a lane, released behind a stream that is busy.
  void leave_pending(MemoryPool& lane, std::uint64_t bytes, StreamHandle behind) {
    const Allocation allocation = lane.allocate(bytes);
    keep_busy(behind);
    ASSERT_TRUE(lane.release(allocation, behind));
  }

  const StreamHandle c_ = device_->simulated_streams().create_stream();
};

TEST_F(MemoryPoolStreamShortageTest, MemoryPendingOnAnotherLaneIsWaitedForAndMoved) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  leave_pending(pool.lane(a_), 16 * kGranule, c_);
  MemoryPool& lane = pool.lane(b_);
  const Allocation moved = lane.allocate(16 * kGranule);
  EXPECT_EQ(streams().queued_count(), 0u) << "what the memory was used for had to run first";
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_TRUE(lane.release(moved));
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamShortageTest, MemoryPendingOnAnotherLaneIsLeftToOneThatDoesNotWait) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  leave_pending(pool.lane(a_), 16 * kGranule, c_);
  MemoryPool& lane = pool.lane(b_);
  EXPECT_EQ(lane.try_allocate(kGranule), std::nullopt);
  Allocation allocation;
  EXPECT_EQ(lane.serve({.bytes = kGranule, .may_block = false}, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(streams().queued_count(), 2u);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
}

TEST_F(MemoryPoolStreamShortageTest, FallbacksThatAreOverGoBackInCallsThatMayBlock) {
  for (const std::uint64_t max_granules : {0U, 40U}) {
    MemoryPool& pool = max_granules == 0 ? build_pool() : build_limited_pool(max_granules);
    MemoryPool& lane = pool.lane(a_);
    leave_pending(lane, 20 * kGranule, b_);
    const Allocation held = lane.allocate(16 * kGranule);
    run(b_);
    Allocation allocation;
    for (const std::uint64_t granules : {1U, 16U, 24U}) {
      EXPECT_EQ(lane.serve({.bytes = granules * kGranule, .may_block = false}, allocation),
                AllocationOutcome::would_block);
      EXPECT_EQ(device_->direct_bytes(), 20 * kGranule);
    }
    EXPECT_EQ(pool.statistics().fallback_pending_bytes, 20 * kGranule);
    ASSERT_EQ(lane.serve({.bytes = 24 * kGranule}, allocation), AllocationOutcome::served);
    EXPECT_EQ(device_->direct_bytes(), 24 * kGranule);
    EXPECT_TRUE(lane.release(allocation, a_));
    EXPECT_TRUE(lane.release(held, a_));
    expect_identities(pool);
  }
}

TEST_F(MemoryPoolStreamShortageTest, OtherLanesAreAskedForOnlyWhatIsNeeded) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  leave_pending(pool.lane(a_), 8 * kGranule, c_);
  leave_pending(pool.lane(b_), 7 * kGranule, b_);
  leave_pending(pool.lane(c_), kGranule, a_);
  const Allocation moved = pool.allocate(8 * kGranule);
  EXPECT_EQ(pending_bytes(), kGranule);
  EXPECT_TRUE(pool.release(moved));
}

TEST_F(MemoryPoolStreamShortageTest, PendingFallbackOfAnotherLaneGoesBackToADeviceThatHasNoMore) {
  device_ = std::make_shared<SimulatedDevice>(20 * kGranule, kGranule);
  const StreamHandle first = streams().create_stream();
  const StreamHandle second = streams().create_stream();
  MemoryPool& pool = build_pool(OnExhaustion::fallback);
  leave_pending(pool.lane(first), 17 * kGranule, second);
  const Allocation fallback = pool.allocate(18 * kGranule);
  EXPECT_TRUE(fallback.is_fallback());
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_EQ(device_->direct_bytes(), 18 * kGranule);
  EXPECT_TRUE(pool.release(fallback));
}

TEST_F(MemoryPoolStreamShortageTest, WhatALaneWasOnlyPutBehindIsNotOverForOthers) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(a_);
  Allocation used = lane.allocate(8 * kGranule);
  ASSERT_TRUE(lane.record_stream(used, c_));
  device_->streams()->copy_async(used.address, used.address + 4 * kGranule, kGranule, c_);
  streams().fail(StreamCall::record_event, 0, 1);  // of b_, which is named
  ASSERT_TRUE(lane.release(used, b_));
  EXPECT_EQ(lane.try_allocate(12 * kGranule), std::nullopt);  // puts a_ behind c_
  MemoryPool& other = pool.lane(b_);
  EXPECT_FALSE(other.try_allocate(16 * kGranule)) << "memory that c_ still uses";
  run(c_);
  EXPECT_EQ(device_->misuse_count(), 0u);
}

TEST_F(MemoryPoolStreamShortageTest, PoolIsUsedByOthersWhileARequestWaits) {
  MemoryPool& pool = build_pool(OnExhaustion::raise);
  MemoryPool& other = pool.lane(b_);
  const Allocation held = other.allocate(kGranule);
  const Allocation pending = other.allocate(15 * kGranule);
  std::promise<void> begun;
  std::promise<void> end;
  streams().enqueue(c_, [&] {
    begun.set_value();
    end.get_future().wait();
  });
  ASSERT_TRUE(other.release(pending, c_));
  MemoryPool& lane = pool.lane(a_);
  std::thread waiting([&] { EXPECT_TRUE(lane.release(lane.allocate(15 * kGranule))); });
  begun.get_future().wait();
  EXPECT_TRUE(other.release(held, b_));
  EXPECT_TRUE(other.release(other.allocate(kGranule), b_));
  end.set_value();
  waiting.join();
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamShortageTest, LimitAsksEventsBeforeItRefuses) {
  MemoryPool& pool = build_limited_pool(4);
  leave_pending(pool, 4 * kGranule, a_);
  Allocation allocation;
  EXPECT_EQ(pool.serve({.bytes = kGranule, .may_block = false}, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  run(a_);
  EXPECT_EQ(pool.serve({.bytes = 4 * kGranule, .may_block = false}, allocation), AllocationOutcome::served);
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_TRUE(pool.release(allocation));
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamShortageTest, LimitPutsTheStreamBehindWhatItsLaneHasPending) {
  MemoryPool& pool = build_limited_pool(4);
  leave_pending(pool.lane(a_), 4 * kGranule, b_);
  const std::optional<Allocation> allocation = pool.lane(a_).try_allocate(4 * kGranule);
  ASSERT_TRUE(allocation);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
  keep_busy(a_);
  EXPECT_FALSE(streams().advance(a_));
  run(b_);
  EXPECT_TRUE(pool.lane(a_).release(*allocation));
}

TEST_F(MemoryPoolStreamShortageTest, LimitWaitsForWhatOtherLanesHavePending) {
  MemoryPool& pool = build_limited_pool(4);
  leave_pending(pool.lane(a_), 4 * kGranule, b_);
  EXPECT_EQ(pool.try_allocate(kGranule), std::nullopt) << "which waits for no stream";
  EXPECT_EQ(streams().queued_count(), 2u);
  const Allocation allocation = pool.allocate(4 * kGranule);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_THROW(static_cast<void>(pool.allocate(kGranule)), OutOfMemoryError);
  EXPECT_TRUE(pool.release(allocation));
  expect_identities(pool);
}

TEST_F(MemoryPoolStreamShortageTest, LimitWaitsForNothingWhereThatCannotHelp) {
  MemoryPool& pool = build_limited_pool(4);
  leave_pending(pool.lane(a_), kGranule, b_);
  EXPECT_THROW(static_cast<void>(pool.allocate(5 * kGranule)), OutOfMemoryError);
  Allocation allocation;
  EXPECT_EQ(pool.serve({.bytes = 5 * kGranule, .may_block = false}, allocation), AllocationOutcome::over_limit);
  EXPECT_EQ(streams().queued_count(), 2u);
  EXPECT_EQ(streams().call_count(StreamCall::synchronize), 0u);
  EXPECT_EQ(pool.statistics().exhaustion_events, 2u);
}

TEST_F(MemoryPoolStreamShortageTest, LimitRefusesWhatAGraphMayUse) {
  MemoryPool& pool = build_limited_pool(4);
  const Allocation allocation = pool.allocate(4 * kGranule);
  streams().begin_capture(a_);
  ASSERT_TRUE(pool.release(allocation, a_));
  streams().end_capture(a_);
  const std::string message = message_of<OutOfMemoryError>([&] { static_cast<void>(pool.allocate(kGranule)); });
  EXPECT_NE(message.find("0.2MB of max_bytes 0.2MB"), std::string::npos) << message;
  EXPECT_EQ(streams().misuse_count(), 0u);
}

}  // namespace
}  // namespace tierpool
