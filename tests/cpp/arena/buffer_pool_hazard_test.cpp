// What went wrong with arenas before: each test fails under the semantics "release appends to the free list, reset
// appends all that was ever handed out, a buffer's length is its bucket".

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "support/captured_log.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::alloc_batch;
using testing::FakeEvent;
using testing::SimulatedArena;

TEST(ArenaHazard, ReleaseThenResetGivesNoBufferTwice) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  EXPECT_EQ(pool.release(pool.alloc(1024)), ReleaseOutcome::released);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 1u);
  EXPECT_NE(pool.alloc(1024).address, pool.alloc(1024).address);
}

TEST(ArenaHazard, ReleaseAllocResetGivesNoBufferTwice) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  EXPECT_EQ(pool.release(pool.alloc(1024)), ReleaseOutcome::released);
  static_cast<void>(pool.alloc(1024));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 1u);
  EXPECT_NE(pool.alloc(1024).address, pool.alloc(1024).address);
}

TEST(ArenaHazard, ReleaseAfterResetDoesNotTakeTheNextOwnersBuffer) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease old = pool.alloc(1024);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  const Lease mine = pool.alloc(1024);
  ASSERT_EQ(mine.address, old.address);
  EXPECT_EQ(pool.release(old), ReleaseOutcome::stale);
  EXPECT_EQ(pool.state_of(mine), LeaseState::live);
  EXPECT_NE(pool.alloc(1024).address, mine.address);
}

TEST(ArenaHazard, ABufferNeverServesAClassItDoesNotFill) {
  SimulatedArena arena(testing::with_size_classes(SizeClasses::power_of_two));
  BufferPool& pool = *arena.pool;
  const Lease undersized = pool.alloc_exact(3000);
  EXPECT_EQ(pool.release(undersized), ReleaseOutcome::released);
  const Lease full = pool.alloc(4096);
  EXPECT_NE(full.address, undersized.address);
  EXPECT_EQ(full.class_bytes, 4096u);
}

TEST(ArenaHazard, WhatThePoolDidNotHandOutIsRefused) {
  SimulatedArena arena;
  SimulatedArena other;
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(4096));
  const Lease foreign = other.pool->alloc(4096);  // the same slot and serial there as the one above has here
  EXPECT_EQ(pool.release(foreign), ReleaseOutcome::foreign);
  EXPECT_EQ(pool.release(Lease{}), ReleaseOutcome::foreign);
  Lease slice = pool.alloc(4096);
  slice.serial += 100;
  EXPECT_EQ(pool.release(slice), ReleaseOutcome::foreign);
  slice.slot = 12345;
  EXPECT_EQ(pool.release(slice), ReleaseOutcome::foreign);
  EXPECT_EQ(pool.in_use_count(), 2u);
  EXPECT_EQ(pool.free_count(), 0u);
}

TEST(ArenaHazard, ResetUnderALiveViewIsRefused) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease viewed = pool.alloc(1024);
  ASSERT_TRUE(pool.add_view(viewed));
  EXPECT_EQ(pool.reset(), ResetOutcome::live_views);
  EXPECT_NE(pool.alloc(1024).address, viewed.address);
  EXPECT_EQ(pool.state_of(viewed), LeaseState::live);
}

TEST(ArenaHazard, ResetUnderWorkInFlightWithholdsTheMemory) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease in_flight = pool.alloc(1024);
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  EXPECT_NE(pool.alloc(1024).address, in_flight.address);
}

TEST(ArenaHazard, AMissedResetIsNoticed) {
  testing::CapturedLog log;
  SimulatedArena arena;
  for (std::uint64_t i = 0; i <= kFreshWithoutReset; ++i) {
    static_cast<void>(arena.pool->alloc(4096));
  }
  EXPECT_EQ(log.records().size(), 1u);
}

// Prefill: with a reset per layer the pool is one layer large; without, a cap stops it before the machine does.
TEST(ArenaHazard, PrefillNeedsOneLayerOrMeetsTheCap) {
  BufferPoolConfig config;
  config.max_bytes = 2 * kGiB;
  SimulatedArena arena(config);
  BufferPool& pool = *arena.pool;
  for (int layer = 0; layer < 33; ++layer) {
    static_cast<void>(alloc_batch(pool, {512 * kMiB, 256 * kMiB, 256 * kMiB}));
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
  }
  EXPECT_EQ(pool.statistics().high_water_bytes, kGiB);

  static_cast<void>(alloc_batch(pool, {512 * kMiB, 256 * kMiB, 256 * kMiB}));
  static_cast<void>(alloc_batch(pool, {512 * kMiB, 256 * kMiB, 256 * kMiB}));
  EXPECT_THROW(static_cast<void>(alloc_batch(pool, {512 * kMiB, 256 * kMiB, 256 * kMiB})), OutOfMemoryError);
  EXPECT_LE(arena.device->direct_bytes(), 2 * kGiB);
}

TEST(ArenaHazard, TheLengthIsWhatWasAskedFor) {
  for (const SizeClasses classes : {SizeClasses::eighths, SizeClasses::power_of_two, SizeClasses::exact}) {
    SimulatedArena arena(testing::with_size_classes(classes));
    BufferPool& pool = *arena.pool;
    EXPECT_EQ(pool.alloc(5000).requested_bytes, 5000u);
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
    EXPECT_EQ(pool.alloc(4999).requested_bytes, 4999u);
    EXPECT_EQ(alloc_batch(pool, {4700})[0].requested_bytes, 4700u);
  }
}

// Memory of work that is queued but not run must not go back to the device.
TEST(ArenaHazard, ClearLeavesWorkInFlightItsMemory) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(kMiB));
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  pool.clear();
  EXPECT_EQ(arena.device->direct_bytes(), kMiB);
  event->complete = true;
  pool.clear();
  EXPECT_EQ(arena.device->direct_bytes(), 0u);
}

TEST(ArenaHazard, ColdAndWarmRunsReadTheSame) {
  BufferPoolConfig config;
  config.zero = ZeroPolicy::always;
  BufferPool pool(config, testing::bare(std::make_shared<HostDevice>()));
  for (int run = 0; run < 3; ++run) {
    const Lease lease = pool.alloc(10000);
    auto* const bytes = static_cast<std::uint8_t*>(pointer_at(lease.address));
    for (std::uint64_t i = 0; i < lease.requested_bytes; ++i) {
      ASSERT_EQ(bytes[i], 0);
    }
    std::memset(bytes, 0xFF, lease.requested_bytes);
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
  }
}

}  // namespace
}  // namespace tierpool
