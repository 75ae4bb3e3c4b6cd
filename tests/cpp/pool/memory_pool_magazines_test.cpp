// What a pool with magazines does beyond what every pool does.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "support/pool_fixture.hpp"
#include "support/threads.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::run_threads;

class MemoryPoolMagazinesTest : public testing::PoolTest {
 protected:
  MemoryPool& build_with(std::uint64_t heap_size_bytes, std::uint32_t num_heaps,
                         const std::function<void(PoolConfig&)>& adjust = nullptr) {
    return build(heap_size_bytes, num_heaps, [&adjust](PoolConfig& config) {
      config.magazines = true;
      if (adjust) {
        adjust(config);
      }
    });
  }
  /// Runs on a thread that has ended when this returns.
  static void elsewhere(const std::function<void()>& call) { std::thread(call).join(); }
};

TEST_F(MemoryPoolMagazinesTest, ReleasedBlockIsServedAgainUnderAnotherGeneration) {
  MemoryPool& pool = build_with(kMiB, 2);
  const Allocation first = pool.allocate(1000);
  ASSERT_TRUE(pool.release(first));
  EXPECT_EQ(pool.statistics().cached_bytes, 1024u);
  const Allocation second = pool.allocate(900);
  EXPECT_EQ(second.address, first.address);
  EXPECT_NE(second.generation, first.generation);
  EXPECT_FALSE(pool.release(first)) << "stale";
  EXPECT_TRUE(pool.release(second));
  EXPECT_FALSE(pool.release(second)) << "double";
  expect_identities(pool);
}

TEST_F(MemoryPoolMagazinesTest, StatisticsCountLiveBlocksAsUsedAndParkedOnesAsCached) {
  MemoryPool& pool = build_with(kMiB, 1);
  const Allocation kept = pool.allocate(1000);
  ASSERT_TRUE(pool.release(pool.allocate(5000)));
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 2u);
  EXPECT_EQ(now.total_deallocations, 1u);
  EXPECT_EQ(now.active_allocations, 1u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.cached_bytes, 5120u);
  EXPECT_EQ(now.peak_used_bytes, 6144u) << "the heap had to hold both";
  EXPECT_EQ(now.largest_allocation_bytes, 5000u);
  EXPECT_EQ(pool.heaps()[0].cached_bytes, 5120u);
  EXPECT_EQ(pool.heaps()[0].live_count, 1u);
  EXPECT_TRUE(pool.release(kept));
  expect_identities(pool);
}

TEST_F(MemoryPoolMagazinesTest, CountsOfAllThreadsAddUpAlsoWhenTheyHaveEnded) {
  MemoryPool& pool = build_with(kMiB, 2);
  run_threads(4, [&pool](std::size_t) {
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(pool.release(pool.allocate(1000)));
    }
  });
  EXPECT_EQ(pool.statistics().total_allocations, 400u);
  EXPECT_EQ(pool.statistics().total_deallocations, 400u);
  EXPECT_EQ(pool.statistics().cached_bytes, 0u) << "threads take nothing with them";
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().total_allocations, 0u);
  EXPECT_TRUE(pool.release(pool.allocate(10)));
  EXPECT_EQ(pool.statistics().total_allocations, 1u);
  EXPECT_EQ(pool.statistics().largest_allocation_bytes, 10u);
}

TEST_F(MemoryPoolMagazinesTest, BlockReleasedElsewhereIsParkedThereAndComesBackAtTheThreadsEnd) {
  MemoryPool& pool = build_with(kMiB, 1);
  const Allocation allocation = pool.allocate(1000);
  elsewhere([&] {
    EXPECT_TRUE(pool.release(allocation));
    EXPECT_EQ(pool.statistics().cached_bytes, 1024u);
  });
  EXPECT_EQ(pool.statistics().cached_bytes, 0u);
  EXPECT_EQ(pool.heaps()[0].free_block_count, 1u);
}

TEST_F(MemoryPoolMagazinesTest, RequestGetsWhatAnotherThreadHasParked) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) {
    config.on_exhaustion = OnExhaustion::raise;
    config.magazine_thread_bytes = kMiB;
    config.magazine_total_bytes = 2 * kMiB;
  });
  std::latch parked(1);
  std::latch served(1);
  std::thread other([&] {
    std::vector<Allocation> all;
    for (int i = 0; i < 16; ++i) {
      all.push_back(pool.allocate(kMiB / 16));
    }
    for (const Allocation& allocation : all) {
      EXPECT_TRUE(pool.release(allocation));
    }
    parked.count_down();
    served.wait();
    EXPECT_TRUE(pool.release(pool.allocate(1000))) << "its magazines work on";
  });
  parked.wait();
  EXPECT_GT(pool.statistics().cached_bytes, kMiB / 2);
  const Allocation whole = pool.allocate(kMiB);
  EXPECT_EQ(pool.statistics().cached_bytes, 0u);
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  ASSERT_TRUE(pool.release(whole));
  served.count_down();
  other.join();
}

TEST_F(MemoryPoolMagazinesTest, FailureWithNothingParkedLeavesTheMagazinesAlone) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; });
  EXPECT_THROW(static_cast<void>(pool.allocate(2 * kMiB)), OutOfMemoryError);
  ASSERT_TRUE(pool.release(pool.allocate(1000)));
  EXPECT_THROW(static_cast<void>(pool.allocate(2 * kMiB)), OutOfMemoryError);
  EXPECT_EQ(pool.statistics().cached_bytes, 1024u) << "no flush can help a request larger than every heap";
}

TEST_F(MemoryPoolMagazinesTest, LastRoomIsServedExactlyWhereAClassWouldNotFit) {
  constexpr std::uint64_t kOdd = 129 * kUnitBytes;  // its class has 136 units
  MemoryPool& pool = build_with(2 * kOdd, 1, [](PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; });
  const Allocation first = keep(pool.allocate(kOdd));
  EXPECT_EQ(first.block_bytes, 136 * kUnitBytes);
  const Allocation last = keep(pool.allocate(122 * kUnitBytes));
  EXPECT_EQ(last.block_bytes, 122 * kUnitBytes);
  EXPECT_EQ(pool.statistics().free_bytes, 0u);
}

TEST_F(MemoryPoolMagazinesTest, NothingIsRoundedAboveTheLimit) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) { config.exact_above_bytes = 0; });
  for (const std::uint64_t units : {1, 33, 129, 1000}) {
    EXPECT_EQ(keep(pool.allocate(units * kUnitBytes)).block_bytes, units * kUnitBytes);
  }
}

TEST_F(MemoryPoolMagazinesTest, AlignedRequestsGoPastTheMagazines) {
  MemoryPool& pool = build_with(kMiB, 1);
  ASSERT_TRUE(pool.release(pool.allocate(256)));
  for (int i = 0; i < 5; ++i) {
    const Allocation aligned = pool.allocate(1000, 4096);
    EXPECT_EQ(aligned.address % 4096, 0u);
    ASSERT_TRUE(pool.release(aligned));
  }
  expect_identities(pool);
}

TEST_F(MemoryPoolMagazinesTest, BatchComesFromMagazinesAndHeapsAndIsCountedOnce) {
  MemoryPool& pool = build_with(kMiB, 2);
  ASSERT_TRUE(pool.release(pool.allocate(1000)));
  pool.reset_statistics();
  const std::vector<Allocation> batch = pool.allocate_batch(std::array<std::uint64_t, 3>{1000, 1000, 70000});
  EXPECT_EQ(pool.statistics().total_allocations, 3u);
  EXPECT_EQ(pool.statistics().requested_bytes, 72000u);
  EXPECT_EQ(pool.statistics().active_allocations, 3u);
  EXPECT_EQ(pool.release_batch(batch), 3u);
  EXPECT_EQ(pool.release_batch(batch), 0u);
  EXPECT_EQ(pool.statistics().total_deallocations, 3u);
  expect_identities(pool);
}

TEST_F(MemoryPoolMagazinesTest, BatchThatFailsIsWhollyUndone) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; });
  ASSERT_TRUE(pool.release(pool.allocate(1000)));
  pool.reset_statistics();
  EXPECT_THROW(static_cast<void>(pool.allocate_batch(std::array<std::uint64_t, 4>{1000, 70000, kMiB, 1000})),
               OutOfMemoryError);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 0u);
  EXPECT_EQ(now.active_allocations, 0u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  EXPECT_EQ(now.used_bytes, 0u);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(pool.allocate(kMiB))) << "nothing is lost";
}

TEST_F(MemoryPoolMagazinesTest, ArraysAreFoundWhileTheyLiveAndNotInTheirFormerPlace) {
  MemoryPool& pool = build_with(kMiB, 1);
  Allocation array;
  for (int i = 0; i < 2; ++i) {  // from the heap, then from the magazine
    ASSERT_EQ(pool.serve({.bytes = 1000, .holder = Holder::array}, array), AllocationOutcome::served);
    EXPECT_EQ(pool.statistics().active_arrays, 1u);
    const Allocation found = pool.find_array(array.address);
    ASSERT_TRUE(found);
    ASSERT_TRUE(pool.release(found));
    EXPECT_EQ(pool.statistics().active_arrays, 0u);
    EXPECT_FALSE(pool.find_array(array.address));
  }
  const Allocation buffer = keep(pool.allocate(1000));
  EXPECT_EQ(buffer.address, array.address);
  EXPECT_FALSE(pool.find_array(buffer.address));
}

TEST_F(MemoryPoolMagazinesTest, TrimEmptiesTheMagazines) {
  MemoryPool& pool = build_with(kMiB, 1);
  ASSERT_TRUE(pool.release(pool.allocate(kGranule)));
  EXPECT_EQ(pool.trim(), kGranule);
  EXPECT_EQ(pool.statistics().cached_bytes, 0u);
  EXPECT_EQ(device_->committed_bytes(), 0u);
}

TEST_F(MemoryPoolMagazinesTest, ThreadParksNoMoreThanItsLimitAndAllTogetherNoMoreThanTheirs) {
  constexpr std::size_t kThreads = 4;
  MemoryPool& pool = build_with(4 * kMiB, 1, [](PoolConfig& config) {
    config.magazine_thread_bytes = 256 * kKiB;
    config.magazine_total_bytes = 512 * kKiB;
  });
  const auto fill = [&pool] {
    std::vector<Allocation> all;
    for (int i = 0; i < 400; ++i) {
      all.push_back(pool.allocate(2000));
    }
    EXPECT_EQ(pool.release_batch(all), all.size());
  };
  fill();
  EXPECT_GT(pool.statistics().cached_bytes, 128 * kKiB);
  EXPECT_LE(pool.statistics().cached_bytes, 256 * kKiB);
  std::latch full(kThreads);
  run_threads(kThreads, [&](std::size_t) {
    fill();
    full.arrive_and_wait();  // all alive
    EXPECT_LE(pool.statistics().cached_bytes, 512 * kKiB);
    full.wait();
  });
}

TEST_F(MemoryPoolMagazinesTest, MaxBytesCountsLiveBlocksOnly) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) {
    config.max_bytes = 64 * kKiB;
    config.on_exhaustion = OnExhaustion::raise;
  });
  for (int i = 0; i < 10; ++i) {
    const Allocation allocation = pool.allocate(64 * kKiB);
    EXPECT_THROW(static_cast<void>(pool.allocate(1)), OutOfMemoryError);
    ASSERT_TRUE(pool.release(allocation));
  }
  EXPECT_GT(pool.statistics().cached_bytes, 0u);
}

// 33 units belong to the class of 34: two of them are within 67 units only if one is exact.
TEST_F(MemoryPoolMagazinesTest, LimitThatAClassWouldExceedIsKeptByAnExactBlock) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) {
    config.max_bytes = 67 * kUnitBytes;
    config.on_exhaustion = OnExhaustion::raise;
  });
  for (int i = 0; i < 3; ++i) {  // the later rounds would refill the class
    const Allocation rounded = pool.allocate(33 * kUnitBytes);
    EXPECT_EQ(rounded.block_bytes, 34 * kUnitBytes);
    const Allocation exact = pool.allocate(33 * kUnitBytes);
    EXPECT_EQ(exact.block_bytes, 33 * kUnitBytes);
    EXPECT_EQ(pool.statistics().used_bytes, 67 * kUnitBytes);
    ASSERT_TRUE(pool.release(rounded));
    ASSERT_TRUE(pool.release(exact));
    expect_identities(pool);
  }
}

TEST_F(MemoryPoolMagazinesTest, ParkedBlockThatWouldExceedTheLimitIsNotServed) {
  MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) { config.max_bytes = 67 * kUnitBytes; });
  ASSERT_TRUE(pool.release(pool.allocate(33 * kUnitBytes)));
  keep(pool.allocate(32 * kUnitBytes));
  keep(pool.allocate(2 * kUnitBytes));
  EXPECT_EQ(keep(pool.allocate(33 * kUnitBytes)).block_bytes, 33 * kUnitBytes);
  EXPECT_EQ(pool.statistics().used_bytes, 67 * kUnitBytes);
}

TEST_F(MemoryPoolMagazinesTest, NoRequestFailsWhileOthersBringBackWhatIsParked) {
  for (int round = 0; round < 100 && !HasFailure(); ++round) {
    MemoryPool& pool = build_with(kMiB, 1, [](PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; });
    for (const Allocation& allocation : pool.allocate_batch(std::vector<std::uint64_t>(64, kMiB / 64))) {
      ASSERT_TRUE(pool.release(allocation));
    }
    ASSERT_EQ(pool.statistics().cached_bytes, kMiB);
    std::latch start(2);
    std::array<Allocation, 2> halves;
    run_threads(2, [&](std::size_t index) {
      start.arrive_and_wait();
      EXPECT_EQ(pool.serve({.bytes = kMiB / 2, .alignment_bytes = 512}, halves[index]), AllocationOutcome::served);
    });
    for (const Allocation& half : halves) {
      ASSERT_TRUE(pool.release(half));
    }
  }
}

TEST_F(MemoryPoolMagazinesTest, ClosedPoolParksNothingAndItsMemoryGoesWithTheLastAllocation) {
  MemoryPool& pool = build_with(kMiB, 1);
  const Allocation kept = pool.allocate(1000);
  ASSERT_TRUE(pool.release(pool.allocate(5000)));
  pool.close();
  EXPECT_EQ(pool.statistics().cached_bytes, 0u);
  EXPECT_EQ(device_->reserved_bytes(), kMiB);
  EXPECT_THROW(static_cast<void>(pool.allocate(1000)), PoolClosedError);
  elsewhere([&] { EXPECT_TRUE(pool.release(kept)); });
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

TEST_F(MemoryPoolMagazinesTest, DroppedPoolEndsWithItsLastBufferWhereverThatGoes) {
  MemoryPool& pool = build_with(kMiB, 2);
  std::vector<Buffer> buffers;
  for (const std::uint64_t bytes : {1000u, 70000u, 3u << 20}) {
    buffers.emplace_back(pool, pool.allocate(bytes));
  }
  ASSERT_TRUE(pool.release(pool.allocate(1000)));
  pool_.reset();
  EXPECT_EQ(device_->reserved_bytes(), 2 * kMiB);
  elsewhere([&] { buffers.pop_back(); });
  buffers.clear();
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

TEST_F(MemoryPoolMagazinesTest, PoolMayBeDroppedWhileThreadsReleaseItsBuffers) {
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    MemoryPool& pool = build_with(kMiB, 2);
    std::array<std::vector<Buffer>, 3> buffers;
    for (std::vector<Buffer>& own : buffers) {
      for (const std::uint64_t bytes : {100u, 1000u, 3u << 20, 40000u}) {
        own.emplace_back(pool, pool.allocate(bytes));
      }
    }
    std::latch start(buffers.size() + 1);
    run_threads(buffers.size() + 1, [&](std::size_t index) {
      start.arrive_and_wait();
      if (index == buffers.size()) {
        pool_.reset();
      } else {
        buffers[index].clear();
      }
    });
    EXPECT_EQ(device_->reserved_bytes(), 0u);
    EXPECT_EQ(device_->direct_bytes(), 0u);
  }
}

TEST_F(MemoryPoolMagazinesTest, ThreadUsesManyPoolsInTurnsAndOutlivesSome) {
  constexpr std::size_t kPools = 5;
  std::array<std::shared_ptr<MemoryPool>, kPools> pools;
  PoolConfig config = testing::quiet_config(kMiB, 1);
  config.magazines = true;
  for (auto& pool : pools) {
    pool = MemoryPool::create(config, device_);
  }
  elsewhere([&] {
    for (int round = 0; round < 20; ++round) {
      for (std::size_t i = 0; i < kPools; ++i) {
        ASSERT_TRUE(pools[i]->release(pools[i]->allocate(1000)));
        if (round == 10 && i % 2 == 0) {
          pools[i] = MemoryPool::create(config, device_);
        }
      }
    }
  });
  for (const auto& pool : pools) {
    EXPECT_EQ(pool->statistics().cached_bytes, 0u);
    EXPECT_EQ(pool->heaps()[0].free_block_count, 1u);
  }
}

}  // namespace
}  // namespace tierpool
