#include "tierpool/arena/growth_alarm.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "support/buffer_pool_fixture.hpp"
#include "support/captured_log.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool {
namespace {

using testing::CapturedLog;
using testing::SimulatedArena;

bool contains(const CapturedLog& log, const std::string& text) {
  return log.records().size() == 1 && log.records()[0].level == LogLevel::warning &&
         log.records()[0].message.find(text) != std::string::npos;
}

TEST(GrowthAlarm, GoesOffOnceWhenEveryEpochGrows) {
  CapturedLog log;
  SimulatedArena arena;
  for (std::uint64_t step = 1; step <= 30; ++step) {
    static_cast<void>(arena.pool->alloc(step * 4096));
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
    ASSERT_EQ(log.records().size(), step < kGrowingEpochs ? 0u : 1u) << step;
    arena.pool->clear();
  }
  EXPECT_TRUE(contains(log, "BufferPool: Fresh allocations in 8 resets in a row")) << log.records()[0].message;
  EXPECT_TRUE(contains(log, "1 of 4KB")) << log.records()[0].message;
  EXPECT_TRUE(contains(log, "and 3 more sizes")) << log.records()[0].message;
  EXPECT_TRUE(contains(log, "track_origins=True")) << log.records()[0].message;
}

TEST(GrowthAlarm, AQuietEpochStartsTheCountAgain) {
  CapturedLog log;
  SimulatedArena arena;
  std::uint64_t bytes = 4096;
  for (int round = 0; round < 5; ++round) {
    for (std::uint32_t step = 0; step + 1 < kGrowingEpochs; ++step) {
      static_cast<void>(arena.pool->alloc_exact(bytes += 4096));
      EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
    }
    static_cast<void>(arena.pool->alloc_exact(bytes));
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
  }
  EXPECT_TRUE(log.records().empty());
}

TEST(GrowthAlarm, NamesOnlyWhatGrewSinceTheLastQuietEpoch) {
  CapturedLog log;
  SimulatedArena arena;
  BufferPool& pool = *arena.pool;
  static_cast<void>(pool.alloc(700 * kKiB));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
  }
  for (std::uint32_t step = 1; step <= kGrowingEpochs; ++step) {
    static_cast<void>(testing::alloc_batch(pool, std::vector<std::uint64_t>(step, 64 * kKiB)));
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
  }
  EXPECT_TRUE(contains(log, "in a row: 8 of 64KB;")) << log.records()[0].message;
}

TEST(GrowthAlarm, GoesOffOnceWithoutAnyReset) {
  CapturedLog log;
  BufferPoolConfig config;
  config.track_origins = true;
  SimulatedArena arena(config);
  for (std::uint64_t i = 0; i <= 3 * kFreshWithoutReset; ++i) {
    const Lease lease = arena.pool->alloc(4096);
    if (i < 10) {
      arena.pool->set_origin(lease, "decode.py:" + std::to_string(i % 2));
    }
    ASSERT_EQ(log.records().size(), i < kFreshWithoutReset ? 0u : 1u);
  }
  EXPECT_TRUE(contains(log, "16385 fresh allocations without a reset: 16385 of 4KB")) << log.records()[0].message;
  EXPECT_TRUE(contains(log, "allocated at decode.py:0, decode.py:1")) << log.records()[0].message;
}

TEST(GrowthAlarm, IsSilentForAWorkingSetThatIsComplete) {
  CapturedLog log;
  SimulatedArena arena;
  for (int token = 0; token < 100; ++token) {
    static_cast<void>(testing::alloc_batch(*arena.pool, {4096, 8192, 4096}));
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
  }
  EXPECT_TRUE(log.records().empty());
}

// A sink that calls the pool would hang if the warning were logged under its lock.
TEST(GrowthAlarm, LogsWithNoLockHeld) {
  SimulatedArena arena;
  int records = 0;
  set_log_sink([&](LogLevel, std::string_view) {
    ++records;
    static_cast<void>(arena.pool->statistics());
  });
  for (std::uint64_t step = 1; step <= kGrowingEpochs; ++step) {
    static_cast<void>(arena.pool->alloc_exact(step * 4096));
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
  }
  for (std::uint64_t i = 0; i <= kFreshWithoutReset; ++i) {
    static_cast<void>(arena.pool->alloc(4096));
  }
  set_log_sink(nullptr);
  EXPECT_EQ(records, 1);
}

}  // namespace
}  // namespace tierpool
