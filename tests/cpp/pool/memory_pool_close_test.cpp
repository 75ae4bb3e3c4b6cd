// close() and what it says about allocations that are still live.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "support/captured_log.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::CapturedLog;
using testing::expect_identities;
using testing::LogRecord;

class MemoryPoolCloseTest : public testing::PoolTest {
 protected:
  CapturedLog log_;
};

TEST_F(MemoryPoolCloseTest, ClosedPoolRefusesNewWorkAndKeepsItsStatistics) {
  MemoryPool& pool = build(kMiB, 2);
  EXPECT_TRUE(pool.release(pool.allocate(1000)));
  EXPECT_FALSE(pool.is_closed());
  pool.close();
  EXPECT_TRUE(pool.is_closed());
  EXPECT_THROW(static_cast<void>(pool.allocate(1)), PoolClosedError);
  EXPECT_THROW(static_cast<void>(pool.try_allocate(1)), PoolClosedError);
  EXPECT_THROW(static_cast<void>(pool.allocate_batch(std::array{std::uint64_t{1}})), PoolClosedError);
  EXPECT_THROW(static_cast<void>(pool.acquire_heap()), PoolClosedError);
  EXPECT_THROW(pool.warm_up(std::array{std::uint64_t{1}}), PoolClosedError);
  EXPECT_EQ(pool.trim(), 0u);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 1u);
  EXPECT_EQ(now.total_deallocations, 1u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.committed_bytes, 0u);
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().total_allocations, 0u);
}

TEST_F(MemoryPoolCloseTest, MemoryGoesAtOnceWhenNothingIsLiveAndNothingIsLogged) {
  MemoryPool& pool = build(kMiB, 2, [](PoolConfig& config) { config.warmup_bytes = {kMiB}; });
  pool.close();
  EXPECT_EQ(device_->reserved_bytes(), 0u);
  EXPECT_EQ(device_->committed_bytes(), 0u);
  EXPECT_TRUE(log_.records().empty());
}

TEST_F(MemoryPoolCloseTest, MemoryGoesWithTheLastAllocationOfEachHeap) {
  MemoryPool& pool = build(kMiB, 2);
  const Allocation first = pool.allocate(1000);
  const Allocation second = pool.allocate(1000);
  const Allocation fallback = pool.allocate(2 * kMiB);
  pool.close();
  EXPECT_EQ(device_->reserved_bytes(), 2 * kMiB);
  EXPECT_TRUE(pool.release(first));
  EXPECT_EQ(device_->reserved_bytes(), kMiB);
  EXPECT_TRUE(pool.release(second));
  EXPECT_EQ(device_->reserved_bytes(), 0u);
  EXPECT_FALSE(pool.release(second));
  EXPECT_TRUE(pool.release(fallback));
  EXPECT_EQ(device_->direct_bytes(), 0u);
  EXPECT_EQ(pool.statistics().active_allocations, 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolCloseTest, LeaksAreReportedOnceAndWithTheirNumbers) {
  MemoryPool& pool = build(kMiB, 2);
  keep(pool.allocate(512 * kKiB));
  keep(pool.allocate(3 * kMiB / 2));
  EXPECT_TRUE(pool.release(pool.allocate(1)));
  pool.close();
  pool.close();
  EXPECT_EQ(
      log_.records(),
      (std::vector<LogRecord>{
          {LogLevel::error, "MetalMemoryPool: Memory leak detected!"},
          {LogLevel::error, "MetalMemoryPool: Acquired: 3, Released: 1, Leaked: 2 buffers"},
          {LogLevel::error, "MetalMemoryPool: Leaked: 2MB; set track_origins=True to see where they were allocated"}}));
}

TEST_F(MemoryPoolCloseTest, LeakedIsWhatIsLiveAlsoAfterAReset) {
  MemoryPool& pool = build(kMiB, 1);
  keep(pool.allocate(1));
  pool.reset_statistics();
  pool.close();
  ASSERT_EQ(log_.records().size(), 3u);
  EXPECT_EQ(log_.records()[1].message, "MetalMemoryPool: Acquired: 0, Released: 0, Leaked: 1 buffers");
}

TEST_F(MemoryPoolCloseTest, OriginsOfLeaksAreNamedInOrder) {
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.track_origins = true; });
  pool.set_origin(keep(pool.allocate(1000)), "b.py:2");
  const Allocation released = pool.allocate(1000);
  pool.set_origin(released, "gone.py:1");
  pool.set_origin(keep(pool.allocate(2 * kMiB)), "a.py:7");
  EXPECT_TRUE(pool.release(released));
  pool.close();
  const std::vector<LogRecord> records = log_.records();
  ASSERT_EQ(records.size(), 5u);
  EXPECT_EQ(records[2].message, "MetalMemoryPool: Leaked: 2MB");
  EXPECT_EQ(records[3], (LogRecord{LogLevel::error, "MetalMemoryPool: Leaked: allocated at a.py:7"}));
  EXPECT_EQ(records[4], (LogRecord{LogLevel::error, "MetalMemoryPool: Leaked: allocated at b.py:2"}));
}

TEST_F(MemoryPoolCloseTest, StaleReleaseLeavesTheOriginOfTheNewOwner) {
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.track_origins = true; });
  const Allocation stale = pool.allocate(1000);
  EXPECT_TRUE(pool.release(stale));
  const Allocation live = keep(pool.allocate(1000));
  ASSERT_EQ(live.address, stale.address);
  pool.set_origin(live, "owner.py:1");
  EXPECT_FALSE(pool.release(stale));
  pool.close();
  EXPECT_EQ(log_.records().back().message, "MetalMemoryPool: Leaked: allocated at owner.py:1");
}

TEST_F(MemoryPoolCloseTest, ArraysAreReportedAsArraysAndNotAsLeaks) {
  MemoryPool& pool = build(kMiB, 1);
  for (const std::uint64_t bytes : {kMiB, 3 * kMiB}) {
    Allocation array;
    ASSERT_EQ(pool.serve({.bytes = bytes, .holder = Holder::array}, array), AllocationOutcome::served);
    keep(array);
  }
  pool.close();
  EXPECT_EQ(
      log_.records(),
      (std::vector<LogRecord>{
          {LogLevel::info, "MetalMemoryPool: Closed with 2 live arrays of 4MB; each keeps its memory until it goes"}}));
}

TEST_F(MemoryPoolCloseTest, DroppedPoolReportsNothing) {
  build(kMiB, 1);
  MemoryPool& dropped = *pool_;
  const Allocation last = dropped.allocate(1000);
  pool_.reset();
  EXPECT_EQ(device_->reserved_bytes(), kMiB) << "the allocation keeps its memory";
  EXPECT_TRUE(dropped.release(last));  // and the pool goes with it
  EXPECT_TRUE(log_.records().empty());
}

}  // namespace
}  // namespace tierpool
