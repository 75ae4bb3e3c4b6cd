// Caps, failures of the device, trim, clear, close, and what a buffer contains.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::alloc_batch;
using testing::FakeEvent;
using testing::SimulatedArena;

BufferPoolConfig with_limits(std::optional<std::uint64_t> max_bytes, std::optional<std::uint64_t> max_buffers) {
  BufferPoolConfig config;
  config.max_bytes = max_bytes;
  config.max_buffers = max_buffers;
  return config;
}

BufferPoolConfig with_zero(ZeroPolicy zero) {
  BufferPoolConfig config;
  config.zero = zero;
  return config;
}

template <class Function>
std::string out_of_memory_message(const Function& function) {
  try {
    function();
  } catch (const OutOfMemoryError& error) {
    return error.what();
  }
  return {};
}

/// The device's books and the pool's agree, and each buffer is in one place.
void expect_true_books(const SimulatedArena& arena) {
  const BufferPoolStatistics now = arena.pool->statistics();
  EXPECT_EQ(now.held_count, now.in_use_count + now.free_count + now.quarantined_count);
  EXPECT_EQ(now.held_bytes, now.in_use_bytes + now.free_bytes + now.quarantined_bytes);
  EXPECT_EQ(arena.device->direct_bytes(), now.held_bytes);
  EXPECT_EQ(arena.device->misuse_count(), 0u);
}

TEST(BufferPoolConfig, RefusesWhatCannotWork) {
  const auto device = std::make_shared<SimulatedDevice>();
  EXPECT_THROW(BufferPool(with_limits(0, {}), testing::bare(device)), ConfigError);
  EXPECT_THROW(BufferPool(with_limits({}, 0), testing::bare(device)), ConfigError);
  for (const ZeroPolicy zero : {ZeroPolicy::fresh, ZeroPolicy::always, ZeroPolicy::poison}) {
    EXPECT_THROW(BufferPool(with_zero(zero), testing::bare(device)), ConfigError);
    EXPECT_NO_THROW(BufferPool(with_zero(zero), testing::bare(std::make_shared<HostDevice>())));
  }
}

TEST(BufferPoolConfig, ZeroNamesAndValuesBelongTogether) {
  for (const char* name : {"never", "fresh", "always", "poison"}) {
    EXPECT_EQ(to_string(parse_zero_policy(name)), name);
  }
  EXPECT_EQ(parse_zero_policy("poison"), ZeroPolicy::poison);
  EXPECT_THROW(static_cast<void>(parse_zero_policy("frsh")), ConfigError);
}

TEST(Limit, BytesAreNamedAndThePoolIsIntact) {
  SimulatedArena arena(with_limits(10 * kMiB, {}));
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> live = alloc_batch(pool, {4 * kMiB, 4 * kMiB});
  const std::string message = out_of_memory_message([&] { static_cast<void>(pool.alloc(4 * kMiB)); });
  EXPECT_NE(message.find("max_bytes 10485760 bytes (10MB)"), std::string::npos) << message;
  EXPECT_NE(message.find("4194304 bytes"), std::string::npos) << message;
  EXPECT_EQ(pool.state_of(live[0]), LeaseState::live);
  EXPECT_EQ(pool.alloc(2 * kMiB).class_bytes, 2 * kMiB);
  expect_true_books(arena);
}

TEST(Limit, BuffersAreNamedAndTheBatchIsAllOrNothing) {
  SimulatedArena arena(with_limits({}, 4));
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(1000));
  const std::string message = out_of_memory_message([&] { static_cast<void>(alloc_batch(pool, {1, 2, 3, 4})); });
  EXPECT_NE(message.find("max_buffers 4"), std::string::npos) << message;
  EXPECT_NE(message.find("10 bytes (10B) in 4 buffers"), std::string::npos) << message;
  EXPECT_EQ(pool.in_use_count(), 1u);
  EXPECT_EQ(alloc_batch(pool, {1, 2, 3}).size(), 3u);
  expect_true_books(arena);
}

// Free buffers of the wrong size must not keep a request out.
TEST(Limit, FreeBuffersMakeRoom) {
  SimulatedArena by_bytes(with_limits(10 * kMiB, {}));
  static_cast<void>(alloc_batch(*by_bytes.pool, {2 * kMiB, 2 * kMiB, 4 * kMiB}));
  EXPECT_EQ(by_bytes.pool->reset(), ResetOutcome::done);
  EXPECT_EQ(by_bytes.pool->alloc(5 * kMiB).class_bytes, 5 * kMiB);
  EXPECT_EQ(by_bytes.pool->free_bytes(), 4 * kMiB);
  expect_true_books(by_bytes);

  SimulatedArena by_count(with_limits({}, 3));
  static_cast<void>(alloc_batch(*by_count.pool, {2 * kMiB, 2 * kMiB, 4 * kMiB}));
  EXPECT_EQ(by_count.pool->reset(), ResetOutcome::done);
  static_cast<void>(alloc_batch(*by_count.pool, {1, 1}));
  EXPECT_EQ(by_count.pool->free_count(), 1u);
  expect_true_books(by_count);
}

TEST(Limit, ARequestThatCanNeverFitCostsNoFreeBuffer) {
  SimulatedArena arena(with_limits(10 * kMiB, {}));
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(4 * kMiB));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_THROW(static_cast<void>(pool.alloc(11 * kMiB)), OutOfMemoryError);
  EXPECT_EQ(pool.free_count(), 1u);
}

TEST(DeviceFailure, LeavesThePoolAsItWas) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease live = pool.alloc(1000);
  for (std::uint64_t after = 0; after < 4; ++after) {
    arena.device->fail(DeviceCall::allocate_direct, after);
    const std::string message = out_of_memory_message([&] {
      static_cast<void>(alloc_batch(pool, {4096, 4096, 8192, 70000, 9}));
    });
    EXPECT_NE(message.find("device 'simulated' has no memory left"), std::string::npos) << message;
    arena.device->recover();
    EXPECT_EQ(pool.in_use_count(), 1u);
    EXPECT_EQ(pool.state_of(live), LeaseState::live);
    expect_true_books(arena);
  }
  EXPECT_EQ(pool.statistics().fresh, 1u);
}

// One failure, and free buffers that can go: the request is served after all.
TEST(DeviceFailure, FreeBuffersMakeRoom) {
  SimulatedArena arena({}, 64 * kMiB);
  BufferPool& pool = *arena.pool;
  static_cast<void>(alloc_batch(pool, {16 * kMiB, 16 * kMiB, 16 * kMiB}));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.alloc(30 * kMiB).class_bytes, 30 * kMiB);
  expect_true_books(arena);
  EXPECT_THROW(static_cast<void>(pool.alloc(65 * kMiB)), OutOfMemoryError);
  expect_true_books(arena);
}

TEST(DeviceFailure, WaitsForWorkInFlightRatherThanFail) {
  SimulatedArena arena({}, 64 * kMiB);
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(40 * kMiB));
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  EXPECT_EQ(pool.alloc(40 * kMiB).class_bytes, 40 * kMiB);
  EXPECT_EQ(event->waits, 1);
  expect_true_books(arena);
}

// A wait that ends without the work having ended must not hand the memory out.
TEST(DeviceFailure, AnEventThatGivesUpKeepsItsBuffers) {
  SimulatedArena arena({}, 64 * kMiB);
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(40 * kMiB));
  const auto event = std::make_shared<FakeEvent>();
  event->gives_up = true;
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  EXPECT_THROW(static_cast<void>(pool.alloc(40 * kMiB)), OutOfMemoryError);
  EXPECT_EQ(event->waits, 1);
  EXPECT_EQ(pool.statistics().quarantined_count, 1u);
  event->complete = true;
  EXPECT_EQ(pool.alloc(40 * kMiB).class_bytes, 40 * kMiB);
  expect_true_books(arena);
}

TEST(Trim, GivesBackAtLeastWhatIsAskedAndLittleMore) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  static_cast<void>(alloc_batch(pool, {kMiB, 4 * kMiB, 16 * kMiB, 64 * kKiB, 64 * kKiB}));
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.trim(0), 0u);
  EXPECT_EQ(pool.trim(1), 64 * kKiB);
  EXPECT_EQ(pool.trim(kMiB + 1), kMiB + 64 * kKiB);
  EXPECT_EQ(pool.trim(3 * kMiB), 4 * kMiB);
  EXPECT_EQ(pool.trim(UINT64_MAX), 16 * kMiB);
  EXPECT_EQ(pool.trim(UINT64_MAX), 0u);
  expect_true_books(arena);
}

TEST(Clear, LeavesLiveLeasesAlone) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> leases = alloc_batch(pool, std::vector<std::uint64_t>(300, 5000));
  EXPECT_EQ(pool.release_batch(std::span(leases).first(200)), 200u);
  pool.clear();
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.in_use_count(), 100u);
  EXPECT_EQ(pool.state_of(leases[250]), LeaseState::live);
  expect_true_books(arena);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 100u);
  expect_true_books(arena);
}

TEST(Close, RefusesNewWorkAndLetsLeasesEnd) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> leases = alloc_batch(pool, {1000, 2000, 3000, 4000});
  EXPECT_EQ(pool.release(leases[0]), ReleaseOutcome::released);
  pool.close();
  pool.close();
  EXPECT_TRUE(pool.is_closed());
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_THROW(static_cast<void>(pool.alloc(1000)), PoolClosedError);
  EXPECT_THROW(static_cast<void>(pool.alloc_exact(1000)), PoolClosedError);
  EXPECT_THROW(static_cast<void>(alloc_batch(pool, {1000})), PoolClosedError);
  EXPECT_THROW(static_cast<void>(alloc_batch(pool, {})), PoolClosedError);
  EXPECT_THROW(pool.register_existing(4096, 4096), PoolClosedError);
  EXPECT_EQ(pool.state_of(leases[1]), LeaseState::live);
  EXPECT_TRUE(pool.add_view(leases[1]));
  EXPECT_EQ(pool.reset(), ResetOutcome::live_views);
  pool.remove_view(leases[1]);

  EXPECT_EQ(pool.release(leases[1]), ReleaseOutcome::released);
  EXPECT_EQ(pool.release_batch(std::vector<Lease>{leases[1], leases[2]}), 1u);
  EXPECT_EQ(pool.statistics().held_count, 1u);
  expect_true_books(arena);
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(arena.device->direct_bytes(), 0u);
  expect_true_books(arena);
}

TEST(Close, WhatGoesBackCanBeLeftForLater) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const std::vector<Lease> leases = alloc_batch(pool, {1000, 1000, 1000, 1000});
  const auto event = std::make_shared<FakeEvent>();
  bool left = false;
  EXPECT_EQ(pool.release(leases[0], left), ReleaseOutcome::released);
  EXPECT_FALSE(left) << "an open pool keeps its buffers";
  pool.close();
  EXPECT_EQ(pool.release(leases[1], left), ReleaseOutcome::released);
  EXPECT_TRUE(left);
  left = false;
  EXPECT_EQ(pool.release_batch(std::vector<Lease>{leases[2]}, left), 1u);
  EXPECT_TRUE(left);
  EXPECT_EQ(pool.free_count(), 2u);
  pool.give_back_free();
  EXPECT_EQ(pool.free_count(), 0u);
  expect_true_books(arena);

  left = false;
  EXPECT_EQ(pool.reset(event, left), ResetOutcome::done);
  EXPECT_TRUE(left);
  event->complete = true;
  EXPECT_EQ(pool.reset(nullptr, left), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 1u);
  pool.give_back_free();
  EXPECT_EQ(arena.device->direct_bytes(), 0u);
  expect_true_books(arena);
}

TEST(Close, WorkInFlightKeepsItsMemoryUntilItIsDone) {
  SimulatedArena arena;
  static_cast<void>(arena.pool->alloc(kMiB));
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(arena.pool->reset(event), ResetOutcome::done);
  arena.pool->close();
  EXPECT_EQ(arena.device->direct_bytes(), kMiB);
  EXPECT_EQ(event->waits, 0);
  arena.pool.reset();
  EXPECT_EQ(event->waits, 1);
  EXPECT_EQ(arena.device->direct_bytes(), 0u);
}

std::vector<std::uint8_t> contents(const Lease& lease) {
  const auto* const bytes = static_cast<const std::uint8_t*>(pointer_at(lease.address));
  return {bytes, bytes + lease.requested_bytes};
}

TEST(Zero, FreshMeansTheFirstTime) {
  BufferPool pool(with_zero(ZeroPolicy::fresh), testing::bare(std::make_shared<HostDevice>()));
  for (const std::uint64_t bytes : {900u, 200000u}) {
    const Lease first = pool.alloc(bytes);
    EXPECT_EQ(contents(first), std::vector<std::uint8_t>(bytes, 0));
    std::memset(pointer_at(first.address), 7, bytes);
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
    const Lease longer = pool.alloc(bytes + 50);
    ASSERT_EQ(longer.address, first.address);
    std::vector<std::uint8_t> expected(bytes, 7);
    expected.resize(bytes + 50, 0);
    EXPECT_EQ(contents(longer), expected);
  }
}

TEST(Zero, AlwaysAndPoisonFillEveryTime) {
  for (const auto& [zero, byte] : {std::pair{ZeroPolicy::always, std::uint8_t{0}}, {ZeroPolicy::poison, kPoisonByte}}) {
    BufferPool pool(with_zero(zero), testing::bare(std::make_shared<HostDevice>()));
    for (int step = 0; step < 3; ++step) {
      for (const Lease& lease : alloc_batch(pool, {900, 200000, 900})) {
        EXPECT_EQ(contents(lease), std::vector<std::uint8_t>(lease.requested_bytes, byte));
        std::memset(pointer_at(lease.address), 7, lease.class_bytes);
      }
      EXPECT_EQ(pool.reset(), ResetOutcome::done);
    }
    EXPECT_EQ(pool.statistics().fresh, 3u);
    EXPECT_EQ(pool.free_count(), 3u);
  }
}

}  // namespace
}  // namespace tierpool
