#include "tierpool/arena/buffer_pool.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::alloc_batch;
using testing::SimulatedArena;
using testing::with_size_classes;

std::set<std::uint64_t> addresses(const std::vector<Lease>& leases) {
  std::set<std::uint64_t> all;
  for (const Lease& lease : leases) {
    all.insert(lease.address);
  }
  return all;
}

TEST(BufferPool, ResetRecyclesWhatWasInUse) {
  SimulatedArena arena(with_size_classes(SizeClasses::power_of_two));
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> first = {pool.alloc(1024), pool.alloc(2048), pool.alloc(1024)};
  EXPECT_EQ(pool.in_use_count(), 3u);
  EXPECT_EQ(pool.free_count(), 0u);

  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.in_use_count(), 0u);
  EXPECT_EQ(pool.free_count(), 3u);
  EXPECT_EQ(pool.free_bytes(), 4096u);

  const Lease small = pool.alloc(1024);
  const Lease large = pool.alloc(2048);
  EXPECT_TRUE(small.address == first[0].address || small.address == first[2].address);
  EXPECT_EQ(large.address, first[1].address);
  EXPECT_EQ(pool.in_use_count(), 2u);
  EXPECT_EQ(pool.free_count(), 1u);
  EXPECT_EQ(arena.fresh_calls(), 3u);
}

TEST(BufferPool, ResetWithNothingInUseChangesNothing) {
  SimulatedArena arena;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
  }
  EXPECT_EQ(arena.pool->free_count(), 0u);
  EXPECT_EQ(arena.pool->in_use_count(), 0u);
  EXPECT_EQ(arena.pool->statistics().resets, 3u);
}

// The original left a released buffer in its in-use list.
TEST(BufferPool, ReleaseEndsTheUseAndFreesTheBuffer) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease lease = pool.alloc(1024);
  EXPECT_EQ(pool.release(lease), ReleaseOutcome::released);
  EXPECT_EQ(pool.free_count(), 1u);
  EXPECT_EQ(pool.in_use_count(), 0u);
  const Lease again = pool.alloc(1024);
  EXPECT_EQ(again.address, lease.address);
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.in_use_count(), 1u);
}

TEST(BufferPool, OnlyTheOwnClassIsReused) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  EXPECT_EQ(pool.release(pool.alloc(1 << 20)), ReleaseOutcome::released);
  const Lease small = pool.alloc(1024);
  EXPECT_EQ(small.class_bytes, 1024u);
  EXPECT_EQ(pool.free_count(), 1u);
}

TEST(BufferPool, BatchTakesOneBufferARequestAndReusesThem) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  EXPECT_TRUE(alloc_batch(pool, {}).empty());
  EXPECT_EQ(arena.fresh_calls(), 0u);
  const std::vector<Lease> first = alloc_batch(pool, {4096, 100, 4096, 70000});
  EXPECT_EQ(arena.fresh_calls(), 4u);
  EXPECT_EQ(pool.in_use_count(), 4u);
  EXPECT_EQ(first[1].requested_bytes, 100u);
  EXPECT_EQ(first[3].requested_bytes, 70000u);
  EXPECT_EQ(addresses(first).size(), 4u);

  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  const std::vector<Lease> second = alloc_batch(pool, {4096, 100, 4096, 70000});
  EXPECT_EQ(arena.fresh_calls(), 4u);
  EXPECT_EQ(addresses(first), addresses(second));
}

// Some buffers free, some missing: the free ones must be used, and each once.
TEST(BufferPool, BatchMixesFreeAndFreshBuffers) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> first = alloc_batch(pool, {1000, 1000});
  EXPECT_EQ(pool.release_batch(first), 2u);
  const std::vector<Lease> second = alloc_batch(pool, {1000, 5000, 1000, 1000});
  EXPECT_EQ(arena.fresh_calls(), 4u);
  EXPECT_EQ(std::set<std::uint64_t>({second[0].address, second[2].address, second[3].address}).size(), 3u);
  EXPECT_EQ(pool.in_use_count(), 4u);
  EXPECT_EQ(pool.statistics().reused, 2u);
}

TEST(BufferPool, TryingTakesOnlyWhatIsFree) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  Lease lease;
  std::vector<Lease> leases(2);
  const std::vector<std::uint64_t> sizes = {1000, 1000};
  EXPECT_FALSE(pool.try_alloc(1000, lease));
  EXPECT_FALSE(pool.try_alloc_exact(1000, lease));
  static_cast<void>(pool.alloc(1000));
  static_cast<void>(pool.alloc_exact(1000));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_FALSE(pool.try_alloc_batch(sizes, leases));
  EXPECT_FALSE(pool.try_alloc_batch(sizes, {&lease, 1}));
  EXPECT_EQ(pool.in_use_count(), 0u);
  EXPECT_TRUE(pool.try_alloc(1000, lease));
  EXPECT_EQ(lease.class_bytes, 1024u);
  EXPECT_TRUE(pool.try_alloc_exact(1000, lease));
  EXPECT_EQ(lease.class_bytes, 1000u);
  EXPECT_FALSE(pool.try_alloc(1000, lease));
  EXPECT_EQ(arena.fresh_calls(), 2u);
  pool.close();
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_FALSE(pool.try_alloc(1000, lease));
}

TEST(BufferPool, BatchNeedsRoomForEveryLease) {
  SimulatedArena arena;
  std::vector<Lease> leases(1);
  EXPECT_THROW(arena.pool->alloc_batch(std::vector<std::uint64_t>{1, 2}, leases), std::invalid_argument);
  EXPECT_EQ(arena.pool->in_use_count(), 0u);
}

TEST(BufferPool, ZeroBytesAreARequest) {
  for (const SizeClasses classes : {SizeClasses::eighths, SizeClasses::power_of_two, SizeClasses::exact}) {
    SimulatedArena arena(with_size_classes(classes));
    const Lease first = arena.pool->alloc(0);
    const Lease second = arena.pool->alloc(0);
    EXPECT_NE(first.address, 0u);
    EXPECT_NE(first.address, second.address);
    EXPECT_EQ(first.requested_bytes, 0u);
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
    arena.pool->clear();
    EXPECT_EQ(arena.device->direct_bytes(), 0u);
  }
}

TEST(BufferPool, ImpossibleSizesAreOutOfMemory) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  for (const std::uint64_t bytes : {UINT64_MAX, kMaxRequestBytes + 1, kMaxRequestBytes}) {
    EXPECT_THROW(static_cast<void>(pool.alloc(bytes)), OutOfMemoryError);
    EXPECT_THROW(static_cast<void>(pool.alloc_exact(bytes)), OutOfMemoryError);
    EXPECT_THROW(static_cast<void>(alloc_batch(pool, {1, bytes})), OutOfMemoryError);
  }
  EXPECT_THROW(static_cast<void>(alloc_batch(pool, std::vector<std::uint64_t>(9, kMaxRequestBytes))), OutOfMemoryError);
  EXPECT_EQ(pool.statistics().held_count, 0u);
  EXPECT_EQ(pool.statistics().held_bytes, 0u);
}

TEST(BufferPool, ExactBuffersAreNotRounded) {
  SimulatedArena arena(with_size_classes(SizeClasses::power_of_two));
  BufferPool& pool = *arena.pool;
  const Lease rounded = pool.alloc(1028);
  const Lease exact = pool.alloc_exact(1028);
  const Lease in_class = pool.alloc_exact(1024);
  EXPECT_EQ(rounded.class_bytes, 2048u);
  EXPECT_EQ(exact.class_bytes, 1028u);
  EXPECT_EQ(in_class.class_bytes, 1024u);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.alloc_exact(1028).address, exact.address);
  EXPECT_EQ(pool.alloc(1028).address, rounded.address);
  EXPECT_EQ(pool.alloc(1000).address, in_class.address);
}

TEST(BufferPool, StatisticsTellFreshReusedAndWaste) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(1000));    // of 1024
  const Lease second = pool.alloc(5000);  // of 5120
  EXPECT_EQ(pool.release(second), ReleaseOutcome::released);
  static_cast<void>(pool.alloc(4700));  // of 5120, used before

  BufferPoolStatistics now = pool.statistics();
  EXPECT_EQ(now.fresh, 2u);
  EXPECT_EQ(now.reused, 1u);
  EXPECT_EQ(now.requested_bytes, 10700u);
  EXPECT_EQ(now.waste_bytes(), 24u + 120u + 420u);
  EXPECT_EQ(now.in_use_bytes, 6144u);
  EXPECT_EQ(now.live_requested_bytes, 5700u);
  EXPECT_EQ(now.high_water_bytes, 6144u);
  EXPECT_DOUBLE_EQ(now.reuse_rate(), 1.0 / 3.0);
  ASSERT_EQ(now.classes.size(), 2u);
  EXPECT_EQ(now.classes[1].class_bytes, 5120u);
  EXPECT_EQ(now.classes[1].fresh, 1u);
  EXPECT_EQ(now.classes[1].reused, 1u);
  EXPECT_EQ(now.classes[1].waste_bytes(), 540u);

  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  now = pool.statistics();
  EXPECT_EQ(now.in_use_bytes, 0u);
  EXPECT_EQ(now.live_requested_bytes, 0u);
  EXPECT_EQ(now.high_water_bytes, 6144u);
  EXPECT_EQ(now.free_bytes, 6144u);
  EXPECT_EQ(now.held_bytes, 6144u);
}

TEST(BufferPool, ExactSizesThatAreGoneStayInTheTotals) {
  SimulatedArena arena(with_size_classes(SizeClasses::exact));
  BufferPool& pool = *arena.pool;
  for (std::uint64_t bytes = 1; bytes <= 1000; ++bytes) {
    static_cast<void>(pool.alloc(bytes));
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
    pool.clear();
  }
  const BufferPoolStatistics now = pool.statistics();
  EXPECT_EQ(now.fresh, 1000u);
  EXPECT_EQ(now.requested_bytes, 500500u);
  EXPECT_EQ(now.waste_bytes(), 0u);
  EXPECT_TRUE(now.classes.empty());
}

TEST(BufferPool, SitsOnTheHeapsOfAPool) {
  const auto device = std::make_shared<SimulatedDevice>();
  PoolConfig source_config;
  source_config.heap_size_bytes = 4 * kMiB;
  source_config.num_heaps = 2;
  source_config.warmup_bytes = {};
  source_config.strategy = Strategy::most_used;
  source_config.on_exhaustion = OnExhaustion::raise;
  const auto source = MemoryPool::create(source_config, device);
  {
    BufferPool pool({}, source);
    for (int token = 0; token < 10; ++token) {
      static_cast<void>(alloc_batch(pool, {kMiB, kMiB, 2 * kMiB, 4 * kMiB}));
      EXPECT_EQ(pool.reset(), ResetOutcome::done);
    }
    EXPECT_EQ(source->statistics().total_allocations, 4u);
    static_cast<void>(alloc_batch(pool, {kMiB, kMiB, 2 * kMiB, 4 * kMiB}));
    EXPECT_THROW(static_cast<void>(pool.alloc(512 * kKiB)), OutOfMemoryError);
    source->close();
    EXPECT_THROW(static_cast<void>(pool.alloc(512 * kKiB)), PoolClosedError);
  }
  EXPECT_EQ(source->statistics().active_allocations, 0u);
  EXPECT_EQ(device->misuse_count(), 0u);
}

TEST(BufferPool, BufferLivesAsLongAsItsPool) {
  const auto device = std::make_shared<SimulatedDevice>();
  {
    BufferPool pool({}, testing::bare(device));
    static_cast<void>(alloc_batch(pool, {1, 2, 3}));
    EXPECT_NE(device->direct_bytes(), 0u);
  }
  EXPECT_EQ(device->direct_bytes(), 0u);
  EXPECT_EQ(device->misuse_count(), 0u);
}

TEST(BufferPool, MemoryIsThereToBeWritten) {
  BufferPool pool({}, testing::bare(std::make_shared<HostDevice>()));
  for (const std::uint64_t bytes : {1u, 1000u, 300000u, 5000000u}) {
    const Lease lease = pool.alloc(bytes);
    EXPECT_EQ(lease.address % 256, 0u);
    std::memset(pointer_at(lease.address), 0x5A, lease.class_bytes);
  }
}

}  // namespace
}  // namespace tierpool
