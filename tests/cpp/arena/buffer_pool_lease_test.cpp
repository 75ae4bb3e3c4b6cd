#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::alloc_batch;
using testing::SimulatedArena;

BufferPoolConfig unchecked() {
  BufferPoolConfig config;
  config.checked = false;
  return config;
}

std::string stale_message(const BufferPool& pool, const Lease& lease) {
  try {
    pool.require_live(lease);
  } catch (const StaleBufferError& error) {
    return error.what();
  }
  return {};
}

TEST(Lease, SaysWhatBecameOfIt) {
  SimulatedArena arena;
  SimulatedArena other;
  BufferPool& pool = *arena.pool;
  const Lease first = pool.alloc(1000);
  const Lease second = pool.alloc(1000);
  EXPECT_EQ(pool.state_of(first), LeaseState::live);
  EXPECT_EQ(stale_message(pool, first), "");
  EXPECT_EQ(pool.release(first), ReleaseOutcome::released);
  EXPECT_EQ(pool.state_of(first), LeaseState::released);
  EXPECT_NE(stale_message(pool, first).find("released"), std::string::npos);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.state_of(second), LeaseState::reset);
  EXPECT_NE(stale_message(pool, second).find("reset"), std::string::npos);
  EXPECT_EQ(other.pool->state_of(second), LeaseState::foreign);
  EXPECT_NE(stale_message(*other.pool, second).find("another buffer pool"), std::string::npos);
  EXPECT_EQ(pool.state_of(Lease{}), LeaseState::foreign);
}

TEST(Lease, SecondReleaseChangesNothing) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease lease = pool.alloc(1000);
  EXPECT_EQ(pool.release(lease), ReleaseOutcome::released);
  EXPECT_EQ(pool.release(lease), ReleaseOutcome::stale);
  const Lease next = pool.alloc(1000);
  EXPECT_EQ(pool.release(lease), ReleaseOutcome::stale);
  EXPECT_EQ(pool.state_of(next), LeaseState::live);
  EXPECT_EQ(pool.free_count(), 0u);
}

// The slot is used again by a buffer of another class: its number alone must not make an old lease live.
TEST(Lease, StaysStaleWhenItsSlotIsUsedAgain) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease old = pool.alloc(1000);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  pool.clear();
  const Lease next = pool.alloc(70000);
  EXPECT_EQ(next.slot, old.slot);
  EXPECT_EQ(pool.state_of(old), LeaseState::reset);
  EXPECT_EQ(pool.release(old), ReleaseOutcome::stale);
  EXPECT_EQ(pool.state_of(next), LeaseState::live);
}

// A failed batch takes free buffers and puts them back: leases of these must not come to life again.
TEST(Lease, StaysStaleWhenAFailedBatchTouchedItsBuffer) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> old = alloc_batch(pool, {1000, 1000, 1000});
  const Lease kept = pool.alloc(1000);
  EXPECT_EQ(pool.release_batch(old), 3u);
  arena.device->fail(DeviceCall::allocate_direct);
  EXPECT_THROW(static_cast<void>(alloc_batch(pool, {1000, 1000, 1 << 20})), OutOfMemoryError);
  arena.device->recover();
  const std::vector<Lease> fresh = alloc_batch(pool, {1000, 1000, 1000});
  for (const Lease& lease : old) {
    EXPECT_EQ(pool.state_of(lease), LeaseState::released);
  }
  for (const Lease& lease : fresh) {
    EXPECT_EQ(pool.state_of(lease), LeaseState::live);
  }
  EXPECT_EQ(pool.state_of(kept), LeaseState::live);
}

TEST(Lease, AnyOrderOfReleaseKeepsTheOthersLive) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> leases = alloc_batch(pool, std::vector<std::uint64_t>(7, 1000));
  for (const std::size_t index : {3u, 0u, 6u, 5u, 1u}) {
    EXPECT_EQ(pool.release(leases[index]), ReleaseOutcome::released);
  }
  EXPECT_EQ(pool.state_of(leases[2]), LeaseState::live);
  EXPECT_EQ(pool.state_of(leases[4]), LeaseState::live);
  EXPECT_EQ(pool.in_use_count(), 2u);
  EXPECT_EQ(pool.release_batch(leases), 2u);
  EXPECT_EQ(pool.in_use_count(), 0u);
}

TEST(View, RefusesResetAndReleaseUntilItIsGone) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease viewed = pool.alloc(1000);
  const Lease other = pool.alloc(1000);
  ASSERT_TRUE(pool.add_view(viewed));
  ASSERT_TRUE(pool.add_view(viewed));
  const BufferPoolStatistics before = pool.statistics();
  EXPECT_EQ(pool.reset(), ResetOutcome::live_views);
  EXPECT_EQ(pool.release(viewed), ReleaseOutcome::has_views);
  EXPECT_EQ(pool.release_batch(std::vector<Lease>{viewed}), 0u);
  EXPECT_EQ(pool.statistics().in_use_count, before.in_use_count);
  EXPECT_EQ(pool.statistics().resets, 0u);
  EXPECT_EQ(pool.statistics().live_views, 2u);
  EXPECT_EQ(pool.state_of(other), LeaseState::live);

  pool.remove_view(viewed);
  EXPECT_EQ(pool.reset(), ResetOutcome::live_views);
  pool.remove_view(viewed);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
}

TEST(View, IsListedWithItsLeaseAndOrigin) {
  BufferPoolConfig config;
  config.track_origins = true;
  SimulatedArena arena(config);
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(1000));
  const Lease viewed = pool.alloc(3000);
  pool.set_origin(viewed, "model.py:12");
  ASSERT_TRUE(pool.add_view(viewed));
  const std::vector<ViewedLease> views = pool.live_views();
  ASSERT_EQ(views.size(), 1u);
  EXPECT_EQ(views[0].lease, viewed);
  EXPECT_EQ(views[0].views, 1u);
  EXPECT_EQ(views[0].origin, "model.py:12");
  pool.remove_view(viewed);
  EXPECT_TRUE(pool.live_views().empty());
}

TEST(View, OriginIsKeptOnlyWhenTracked) {
  SimulatedArena arena;
  const Lease viewed = arena.pool->alloc(3000);
  arena.pool->set_origin(viewed, "model.py:12");
  ASSERT_TRUE(arena.pool->add_view(viewed));
  EXPECT_EQ(arena.pool->live_views()[0].origin, "");
}

TEST(View, NeedsALiveLease) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease lease = pool.alloc(1000);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_FALSE(pool.add_view(lease));
  EXPECT_FALSE(pool.add_view(Lease{}));
  EXPECT_EQ(pool.statistics().live_views, 0u);
}

// Without checks memory is handed out again under live views; when these go, nobody else's count may change.
TEST(View, CutOffByAnUncheckedResetCountsNoMore) {
  SimulatedArena arena(unchecked());
  BufferPool& pool = *arena.pool;
  const Lease old = pool.alloc(1000);
  ASSERT_TRUE(pool.add_view(old));
  ASSERT_TRUE(pool.add_view(old));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.statistics().live_views, 0u);

  const Lease next = pool.alloc(1000);
  ASSERT_EQ(next.address, old.address);
  ASSERT_TRUE(pool.add_view(next));
  pool.remove_view(old);
  pool.remove_view(old);
  EXPECT_EQ(pool.statistics().live_views, 1u);
  pool.remove_view(next);
  pool.remove_view(next);
  EXPECT_EQ(pool.statistics().live_views, 0u);
}

TEST(View, CutOffByAnUncheckedReleaseCountsNoMore) {
  SimulatedArena arena(unchecked());
  BufferPool& pool = *arena.pool;
  const Lease old = pool.alloc(1000);
  const Lease other = pool.alloc(1000);
  ASSERT_TRUE(pool.add_view(old));
  ASSERT_TRUE(pool.add_view(other));
  EXPECT_EQ(pool.release(old), ReleaseOutcome::released);
  EXPECT_EQ(pool.statistics().live_views, 1u);
  pool.remove_view(old);
  EXPECT_EQ(pool.statistics().live_views, 1u);
}

}  // namespace
}  // namespace tierpool
