// Calls of different kinds at the same time.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <vector>

#include "support/pool_fixture.hpp"
#include "support/threads.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::run_threads;

class MemoryPoolConcurrencyTest : public testing::PoolTest {};

TEST_F(MemoryPoolConcurrencyTest, CloseMayMeetAnyOtherCall) {
  for (std::uint64_t round = 0; round < 150; ++round) {
    // Large enough that two live blocks of the others always leave room for a third.
    MemoryPool& pool = build(32 * kGranule, 2);
    std::atomic<bool> closed{false};
    run_threads(5, [&](std::size_t thread) {
      std::mt19937_64 random(round);
      if (thread == 0) {
        for (std::uint64_t i = random() % 200; i > 0; --i) {
          static_cast<void>(pool.statistics());
        }
        pool.trim();
        closed = true;
        pool.close();
        return;
      }
      while (!closed) {
        try {
          if (thread == 1) {
            pool.trim();
            pool.warm_up(std::array{5 * kGranule});
          } else {
            const Allocation allocation = pool.allocate(random() % (4 * kGranule));
            EXPECT_TRUE(pool.release(allocation));
          }
        } catch (const PoolClosedError&) {
          return;
        }
      }
    });
    EXPECT_EQ(device_->reserved_bytes(), 0u);
    EXPECT_EQ(device_->direct_bytes(), 0u);
    EXPECT_EQ(pool.statistics().active_allocations, 0u);
    EXPECT_EQ(pool.statistics().exhaustion_events, 0u) << "a closing pool is not an exhausted one";
    expect_identities(pool);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST_F(MemoryPoolConcurrencyTest, NoRequestFailsBecauseATrimHoldsTheMemory) {
  MemoryPool& pool = build(4 * kGranule, 1, [](PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; });
  std::atomic<bool> done{false};
  std::atomic<int> trims{0};
  run_threads(3, [&](std::size_t thread) {
    if (thread == 0) {
      for (; !done; ++trims) {
        pool.trim();
      }
      return;
    }
    // One request of each kind fits next to the other, so that neither may ever fail.
    for (int i = 0; i < 10000 || trims < 500; ++i) {
      try {
        EXPECT_TRUE(pool.release(pool.allocate(thread == 1 ? kGranule : 512)));
      } catch (const OutOfMemoryError& error) {
        ADD_FAILURE() << error.what();
        break;
      }
    }
    done = true;
  });
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  EXPECT_LE(pool.statistics().peak_used_bytes, kGranule + 512) << "what a trim holds is nobody's use";
  EXPECT_LE(pool.heaps()[0].peak_used_bytes, kGranule + 512);
  expect_identities(pool);
}

TEST_F(MemoryPoolConcurrencyTest, EveryFallbackSinceAResetIsAnExhaustionSinceIt) {
  MemoryPool& pool = build(kGranule, 1);
  std::atomic<bool> done{false};
  std::atomic<int> resets{0};
  run_threads(4, [&](std::size_t thread) {
    if (thread == 0) {
      for (; !done; ++resets) {
        pool.reset_statistics();
        const PoolStatistics now = pool.statistics();
        EXPECT_LE(now.fallback_allocations, now.exhaustion_events);
        EXPECT_LE(now.used_bytes, now.peak_used_bytes);
      }
      return;
    }
    for (int i = 0; i < 10000 || resets < 500; ++i) {
      if (i % 10 == 0) {
        for (const Allocation& allocation : pool.allocate_batch(std::array{2 * kGranule, std::uint64_t{100}})) {
          EXPECT_TRUE(pool.release(allocation));
        }
      } else {
        EXPECT_TRUE(pool.release(pool.allocate(i % 2 == 0 ? 2 * kGranule : 100)));
      }
      const PoolStatistics now = pool.statistics();
      EXPECT_LE(now.fallback_allocations, now.exhaustion_events);
      EXPECT_LE(now.used_bytes, now.peak_used_bytes);
      EXPECT_LE(now.peak_used_bytes, now.capacity_bytes);
    }
    done = true;
  });
  EXPECT_EQ(pool.statistics().active_allocations, 0u);
  expect_identities(pool, true);
}

TEST_F(MemoryPoolConcurrencyTest, LimitIsNeverExceededByManyThreads) {
  static constexpr std::uint64_t kLimit = 10 * kGranule;
  MemoryPool& pool = build(4 * kGranule, 2, [](PoolConfig& config) { config.max_bytes = kLimit; });
  std::atomic<std::uint64_t> served{0};
  std::atomic<std::uint64_t> refused{0};
  run_threads(4, [&](std::size_t thread) {
    std::mt19937_64 random(thread);
    std::vector<Allocation> live;
    for (int i = 0; i < 10000; ++i) {
      try {
        live.push_back(pool.allocate(random() % (2 * kGranule)));
        ++served;
      } catch (const OutOfMemoryError&) {
        ++refused;
      }
      if (live.size() > random() % 5) {
        EXPECT_TRUE(pool.release(live.back()));
        live.pop_back();
      }
      const PoolStatistics now = pool.statistics();
      EXPECT_LE(now.fallback_used_bytes, kLimit);
      EXPECT_LE(now.used_bytes, kLimit);
    }
    for (const Allocation& allocation : live) {
      EXPECT_TRUE(pool.release(allocation));
    }
  });
  EXPECT_GT(served.load(), 0u);
  EXPECT_EQ(pool.statistics().total_allocations, served.load());
  EXPECT_GE(pool.statistics().exhaustion_events, refused.load());
  EXPECT_TRUE(pool.release(pool.allocate(kLimit))) << "everything came back to the limit";
  expect_identities(pool);
}

TEST_F(MemoryPoolConcurrencyTest, OriginsMayBeSetWhileOthersAreForgotten) {
  MemoryPool& pool = build(kMiB, 2, [](PoolConfig& config) { config.track_origins = true; });
  run_threads(4, [&](std::size_t) {
    for (int i = 0; i < 10000; ++i) {
      const Allocation allocation = pool.allocate(1000);
      pool.set_origin(allocation, "somewhere.py:1");
      EXPECT_TRUE(pool.release(allocation));
    }
  });
  expect_identities(pool);
}

}  // namespace
}  // namespace tierpool
