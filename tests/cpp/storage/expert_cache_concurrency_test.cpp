#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "support/storage_fixture.hpp"
#include "support/threads.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/storage/expert_cache.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool {
namespace {

using testing::FakeSource;

constexpr std::uint32_t kUnits = 24;
constexpr std::uint32_t kSlots = 9;
constexpr std::size_t kThreads = 4;

std::vector<UnitId> draw_units(std::mt19937& random, std::size_t most) {
  std::vector<UnitId> units(1 + random() % most);
  for (UnitId& unit : units) {
    unit = static_cast<UnitId>(random() % kUnits);
  }
  return units;
}

// Three threads hold at most two units each while a fourth fetches ahead and cancels, and reads fail now and then.
TEST(ExpertCacheConcurrency, WhatIsHeldIsShownWhateverOthersDo) {
  testing::FakeStorage storage(kUnits, kSlots, 3);
  for (std::uint64_t call = 50; call < 4000; call += 97) {
    storage.source->fail_at(call, call % 2 == 0 ? FakeSource::Failure::io_error : FakeSource::Failure::short_read);
  }
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> held{0};
  std::atomic<std::uint64_t> failed{0};
  ExpertCache cache(storage.loader, storage.slots, storage.binding, std::make_unique<LrfuPolicy>(kUnits),
                    storage.clock);
  testing::run_threads(kThreads, [&](std::size_t index) {
    std::mt19937 random(static_cast<unsigned>(index));
    for (int round = 0; round < 400; ++round) {
      const std::vector<UnitId> units = draw_units(random, index == 0 ? 4 : 2);
      if (index == 0) {
        cache.prefetch(units);
        if (round % 7 == 0) {
          cache.cancel();
        }
        continue;
      }
      try {
        const ExpertCache::Lease lease = cache.acquire(units);
        for (const UnitId unit : units) {
          wrong += storage.binding.shows(unit) ? 0 : 1;
        }
        ++held;
      } catch (const ReadError&) {
        ++failed;
      } catch (const CancelledError&) {
        ++failed;
      }
    }
  });
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_EQ(held + failed, 3u * 400);
  EXPECT_GT(held.load(), 600u);
  EXPECT_GT(failed.load(), 0u);
  const CacheStatistics statistics = cache.statistics();
  EXPECT_EQ(statistics.hits + statistics.misses, statistics.requests);
  cache.close();
  EXPECT_EQ(storage.binding.misuse_count(), 0);
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  EXPECT_EQ(storage.slots.free_count(), kSlots);
}

TEST(ExpertCacheConcurrency, CloseMeetsThreadsAtWork) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    testing::FakeStorage storage(kUnits, kSlots, 2);
    ExpertCache cache(storage.loader, storage.slots, storage.binding, std::make_unique<LrfuPolicy>(kUnits),
                      storage.clock);
    testing::run_threads(kThreads, [&](std::size_t index) {
      std::mt19937 random(seed * 10 + static_cast<unsigned>(index));
      if (index == 0) {
        storage.source->wait_for_calls(2 * seed);
        cache.close();
        return;
      }
      try {
        while (true) {
          static_cast<void>(cache.acquire(draw_units(random, 2)));
        }
      } catch (const CancelledError&) {
      }
    });
    EXPECT_EQ(storage.binding.misuse_count(), 0);
    EXPECT_EQ(storage.binding.shown_count(), 0u);
    EXPECT_EQ(storage.slots.free_count(), kSlots);
  }
}

}  // namespace
}  // namespace tierpool
