#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool {
namespace {

using testing::alloc_batch;
using testing::FakeEvent;
using testing::SimulatedArena;

TEST(Quarantine, EndsAtTheNextRequestThatWouldGoFresh) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease first = pool.alloc(1000);
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  EXPECT_EQ(pool.state_of(first), LeaseState::reset);
  EXPECT_EQ(pool.in_use_count(), 0u);
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.statistics().quarantined_count, 1u);
  EXPECT_EQ(pool.statistics().quarantined_bytes, 1024u);

  const Lease second = pool.alloc(1000);
  EXPECT_NE(second.address, first.address);
  event->complete = true;
  const Lease third = pool.alloc(1000);
  EXPECT_EQ(third.address, first.address);
  EXPECT_EQ(pool.statistics().quarantined_count, 0u);
  EXPECT_EQ(arena.fresh_calls(), 2u);
}

// A free buffer is served without asking a device anything.
TEST(Quarantine, IsNotAskedWhileThereAreFreeBuffers) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease freed = alloc_batch(pool, {1000, 1000})[0];
  EXPECT_EQ(pool.release(freed), ReleaseOutcome::released);
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  const int polls = event->polls;
  EXPECT_EQ(pool.alloc(1000).address, freed.address);
  EXPECT_EQ(event->polls, polls);
}

TEST(Quarantine, EndsAtTheNextReset) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(1000));
  const auto event = std::make_shared<FakeEvent>();
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  event->complete = true;
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 1u);
}

TEST(Quarantine, EventsMayCompleteInAnyOrder) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  std::vector<std::shared_ptr<FakeEvent>> events;
  std::vector<Lease> leases;
  for (int step = 0; step < 3; ++step) {
    leases.push_back(pool.alloc(1000));
    events.push_back(std::make_shared<FakeEvent>());
    EXPECT_EQ(pool.reset(events.back()), ResetOutcome::done);
  }
  EXPECT_EQ(arena.fresh_calls(), 3u);
  events[1]->complete = true;
  EXPECT_EQ(pool.alloc(1000).address, leases[1].address);
  events[2]->complete = true;
  events[0]->complete = true;
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 3u);
  EXPECT_EQ(pool.statistics().quarantined_count, 0u);
}

TEST(Quarantine, OneEventMayGuardSeveralEpochs) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const auto event = std::make_shared<FakeEvent>();
  static_cast<void>(pool.alloc(1000));
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  static_cast<void>(pool.alloc(1000));
  EXPECT_EQ(pool.reset(event), ResetOutcome::done);
  EXPECT_EQ(pool.statistics().quarantined_count, 2u);
  event->complete = true;
  EXPECT_EQ(pool.reset(), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 2u);
}

TEST(Quarantine, LiveViewsRefuseAndNoEventIsAPlainReset) {
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  const Lease viewed = pool.alloc(1000);
  ASSERT_TRUE(pool.add_view(viewed));
  EXPECT_EQ(pool.reset(std::make_shared<FakeEvent>()), ResetOutcome::live_views);
  EXPECT_EQ(pool.state_of(viewed), LeaseState::live);
  pool.remove_view(viewed);
  EXPECT_EQ(pool.reset(nullptr), ResetOutcome::done);
  EXPECT_EQ(pool.free_count(), 1u);
  EXPECT_EQ(pool.reset(std::make_shared<FakeEvent>()), ResetOutcome::done);
  EXPECT_EQ(pool.statistics().quarantined_count, 0u);
}

TEST(Quarantine, HoldsBuffersOfEveryClassAndLetsThemAllGo) {
  BufferPoolConfig config;
  config.max_buffers = 6;
  SimulatedArena arena(config);
  BufferPool& pool = *arena.pool;
  for (int token = 0; token < 20; ++token) {
    static_cast<void>(alloc_batch(pool, {1000, 2000, 5000}));
    EXPECT_EQ(pool.reset(std::make_shared<FakeEvent>()), ResetOutcome::done);
  }
  EXPECT_EQ(arena.fresh_calls(), 6u);
  EXPECT_EQ(pool.statistics().held_count, 6u);
}

}  // namespace
}  // namespace tierpool
