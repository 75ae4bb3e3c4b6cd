#include "tierpool/pool/memory_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/captured_log.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::message_of;

class MemoryPoolTest : public testing::PoolTest {
 protected:
  /// The heaps that serve one request of each size, one after the other.
  [[nodiscard]] std::vector<std::uint32_t> heaps_for(const std::vector<std::uint64_t>& sizes_bytes) {
    std::vector<std::uint32_t> heaps;
    for (const std::uint64_t bytes : sizes_bytes) {
      heaps.push_back(keep(pool_->allocate(bytes)).heap_index);
    }
    return heaps;
  }
};

using Heaps = std::vector<std::uint32_t>;

TEST_F(MemoryPoolTest, NewPoolHasReservedItsHeapsAndCommittedNothing) {
  MemoryPool& pool = build(3 * kMiB, 5);
  EXPECT_EQ(device_->reserved_bytes(), 15 * kMiB);
  EXPECT_EQ(device_->committed_bytes(), 0u);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_heaps, 5u);
  EXPECT_EQ(now.available_count(), 5u);
  EXPECT_EQ(now.capacity_bytes, 15 * kMiB);
  EXPECT_EQ(now.free_bytes, 15 * kMiB);
  EXPECT_EQ(now.largest_free_bytes, 3 * kMiB);
  expect_identities(pool);
}

TEST_F(MemoryPoolTest, AllocationIsServedCountedAndTakenBack) {
  MemoryPool& pool = build(kMiB, 2);
  const Allocation allocation = pool.allocate(1000);
  EXPECT_NE(allocation.heap_index, kNoHeap);
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 1u);
  EXPECT_EQ(now.active_allocations, 1u);
  EXPECT_EQ(now.active_heaps, 1u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.requested_bytes, 1000u);
  EXPECT_EQ(now.largest_allocation_bytes, 1000u);
  EXPECT_EQ(now.hit_rate(), 1.0);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(allocation));
  now = pool.statistics();
  EXPECT_EQ(now.total_deallocations, 1u);
  EXPECT_EQ(now.active_allocations, 0u);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(now.peak_used_bytes, 1024u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolTest, ZeroBytesTakeOneUnitAndCountAsAny) {
  MemoryPool& pool = build(kMiB, 1);
  const Allocation allocation = pool.allocate(0);
  EXPECT_NE(allocation.address, 0u);
  EXPECT_EQ(allocation.heap_index, 0u);
  EXPECT_EQ(allocation.block_bytes, kUnitBytes);
  EXPECT_EQ(pool.statistics().total_allocations, 1u);
  EXPECT_EQ(pool.statistics().used_bytes, kUnitBytes);
  EXPECT_TRUE(pool.release(allocation));
}

TEST_F(MemoryPoolTest, AddressesHaveTheirAlignmentInHeapsAndFallbacks) {
  MemoryPool& pool = build(8 * kGranule, 1);
  for (std::uint64_t alignment = 1; alignment <= kGranule; alignment *= 2) {
    keep(pool.allocate(1));
    EXPECT_EQ(keep(pool.allocate(100, alignment)).address % alignment, 0u);
    EXPECT_EQ(keep(pool.allocate(9 * kGranule, alignment)).address % alignment, 0u);
  }
  EXPECT_EQ(pool.statistics().fallback_allocations, 17u);
  for (const std::uint64_t alignment : {std::uint64_t{0}, std::uint64_t{3}, 2 * kGranule, ~std::uint64_t{0}}) {
    const std::string message =
        message_of<std::invalid_argument>([&] { static_cast<void>(pool.allocate(1, alignment)); });
    EXPECT_NE(message.find(std::to_string(alignment)), std::string::npos) << message;
    EXPECT_NE(message.find(std::to_string(kGranule)), std::string::npos) << message;
    EXPECT_THROW(static_cast<void>(pool.try_allocate(1, alignment)), std::invalid_argument);
  }
}

TEST_F(MemoryPoolTest, RoundRobinGoesFromHeapToHeap) {
  build(kMiB, 3);
  EXPECT_EQ(heaps_for({1000, 1000, 1000, 1000}), (Heaps{0, 1, 2, 0}));
}

TEST_F(MemoryPoolTest, RoundRobinTriesEveryHeapBeforeItGivesUp) {
  build(kMiB, 3);
  EXPECT_EQ(heaps_for({kMiB, 600 * kKiB, 600 * kKiB, 400 * kKiB, 300 * kKiB, kMiB}), (Heaps{0, 1, 2, 1, 2, kNoHeap}));
}

TEST_F(MemoryPoolTest, BestFitTakesTheHeapThatIsFilledBest) {
  build(kMiB, 3, [](PoolConfig& config) { config.strategy = Strategy::best_fit; });
  EXPECT_EQ(heaps_for({300 * kKiB, 900 * kKiB, 500 * kKiB, 100 * kKiB}), (Heaps{0, 1, 0, 1}));
}

TEST_F(MemoryPoolTest, LeastUsedSpreadsAndMostUsedPacks) {
  build(kMiB, 3, [](PoolConfig& config) { config.strategy = Strategy::least_used; });
  EXPECT_EQ(heaps_for({300 * kKiB, 200 * kKiB, 100 * kKiB, 100 * kKiB, 50 * kKiB}), (Heaps{0, 1, 2, 2, 1}));
  build(kMiB, 3, [](PoolConfig& config) { config.strategy = Strategy::most_used; });
  EXPECT_EQ(heaps_for({300 * kKiB, 600 * kKiB, 200 * kKiB, 100 * kKiB}), (Heaps{0, 0, 1, 0}));
}

TEST_F(MemoryPoolTest, MoreHeapsThanFitOnTheStackWork) {
  build(kGranule, 100, [](PoolConfig& config) { config.strategy = Strategy::least_used; });
  for (std::uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(keep(pool_->allocate(kGranule)).heap_index, i);
  }
  EXPECT_TRUE(keep(pool_->allocate(1)).is_fallback());
  EXPECT_EQ(pool_->statistics().active_heaps, 100u);
}

TEST_F(MemoryPoolTest, ReleaseRefusesWhatIsNotLiveHereAndChangesNothing) {
  MemoryPool& pool = build(kMiB, 2);
  const auto other = MemoryPool::create(testing::quiet_config(kMiB, 2), device_);
  const Allocation kept = pool.allocate(1000);
  const Allocation gone = pool.allocate(1000);
  const Allocation foreign = other->allocate(1000);
  const Allocation foreign_fallback = other->allocate(2 * kMiB);
  ASSERT_TRUE(pool.release(gone));
  Allocation no_such_heap = kept;
  no_such_heap.heap_index = 2;
  for (const Allocation& refused : {gone, foreign, foreign_fallback, no_such_heap, Allocation{}}) {
    EXPECT_FALSE(pool.release(refused));
  }
  EXPECT_EQ(pool.statistics().active_allocations, 1u);
  EXPECT_EQ(pool.statistics().total_deallocations, 1u);
  expect_identities(pool);
  EXPECT_TRUE(other->release(foreign));
  EXPECT_TRUE(other->release(foreign_fallback));
  EXPECT_TRUE(pool.release(kept));
}

TEST_F(MemoryPoolTest, BatchServesAllInOrder) {
  MemoryPool& pool = build(kMiB, 2);
  const std::array<std::uint64_t, 4> sizes = {1000, 0, 3 * kMiB, 500 * kKiB};
  const std::vector<Allocation> batch = pool.allocate_batch(sizes);
  ASSERT_EQ(batch.size(), 4u);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(batch[i].requested_bytes, sizes[i]);
    EXPECT_EQ(batch[i].is_fallback(), i == 2);
  }
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 4u);
  EXPECT_EQ(now.fallback_allocations, 1u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  expect_identities(pool);
  for (const Allocation& allocation : batch) {
    EXPECT_TRUE(pool.release(allocation));
  }
  EXPECT_TRUE(pool.allocate_batch({}).empty());
}

TEST_F(MemoryPoolTest, BatchThatCannotBeServedTakesAndCountsNothingButItsExhaustions) {
  MemoryPool& pool = build(kMiB, 2);
  device_->fail(DeviceCall::allocate_direct, 1);
  const std::array<std::uint64_t, 5> sizes = {1000, 900 * kKiB, 2 * kMiB, 1000, 3 * kMiB};
  EXPECT_THROW(static_cast<void>(pool.allocate_batch(sizes)), OutOfMemoryError);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 0u);
  EXPECT_EQ(now.total_deallocations, 0u);
  EXPECT_EQ(now.requested_bytes, 0u);
  EXPECT_EQ(now.active_allocations, 0u);
  EXPECT_EQ(now.peak_used_bytes, 0u);
  EXPECT_EQ(now.largest_allocation_bytes, 0u);
  EXPECT_EQ(now.exhaustion_events, 2u);
  EXPECT_EQ(now.largest_free_bytes, kMiB);
  EXPECT_EQ(device_->direct_bytes(), 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolTest, ArraysAreFoundInHeapsAndFallbacks) {
  MemoryPool& pool = build(kMiB, 2);
  Allocation in_heap;
  Allocation outside;
  ASSERT_EQ(pool.serve({.bytes = 1000, .holder = Holder::array}, in_heap), AllocationOutcome::served);
  ASSERT_EQ(pool.serve({.bytes = 2 * kMiB, .holder = Holder::array}, outside), AllocationOutcome::served);
  const Allocation buffer = pool.allocate(1000);
  EXPECT_EQ(pool.statistics().active_arrays, 2u);
  EXPECT_FALSE(pool.find_array(buffer.address));
  EXPECT_FALSE(pool.find_array(17));
  EXPECT_TRUE(pool.release(pool.find_array(in_heap.address)));
  EXPECT_TRUE(pool.release(pool.find_array(outside.address)));
  EXPECT_FALSE(pool.find_array(outside.address));
  EXPECT_EQ(pool.statistics().active_arrays, 0u);
  EXPECT_EQ(pool.statistics().active_allocations, 1u);
  EXPECT_TRUE(pool.release(buffer));
}

TEST_F(MemoryPoolTest, WholeHeapsAreHandedOutWhileOneIsEmpty) {
  MemoryPool& pool = build(kMiB, 2);
  const Allocation small = keep(pool.allocate(1));
  const Allocation heap = pool.acquire_heap();
  EXPECT_EQ(heap.requested_bytes, kMiB);
  EXPECT_NE(heap.heap_index, small.heap_index);
  EXPECT_TRUE(pool.is_whole_heap(heap));
  EXPECT_FALSE(pool.is_whole_heap(small));
  EXPECT_EQ(pool.statistics().available_count(), 0u);
  const Allocation fallback = keep(pool.acquire_heap());
  EXPECT_TRUE(fallback.is_fallback());
  EXPECT_TRUE(pool.is_whole_heap(fallback));
  EXPECT_TRUE(pool.release(heap));
  EXPECT_FALSE(keep(pool.acquire_heap()).is_fallback());
}

TEST_F(MemoryPoolTest, ResetStartsCountsAgainAndKeepsWhatIsLive) {
  MemoryPool& pool = build(kMiB, 2);
  const Allocation kept = pool.allocate(1000);
  const Allocation kept_fallback = pool.allocate(2 * kMiB);
  ASSERT_TRUE(pool.release(pool.allocate(kMiB / 2)));
  pool.reset_statistics();
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 0u);
  EXPECT_EQ(now.total_deallocations, 0u);
  EXPECT_EQ(now.fallback_allocations, 0u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.requested_bytes, 0u);
  EXPECT_EQ(now.largest_allocation_bytes, 0u);
  EXPECT_EQ(now.active_allocations, 2u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.peak_used_bytes, 1024u);
  EXPECT_EQ(now.fallback_used_bytes, 2 * kMiB);
  expect_identities(pool, true);
  EXPECT_TRUE(pool.release(kept));
  EXPECT_TRUE(pool.release(kept_fallback));
  now = pool.statistics();
  EXPECT_EQ(now.total_deallocations, 2u);
  EXPECT_EQ(now.active_allocations, 0u);
  EXPECT_EQ(now.hit_rate(), 0.0);
  expect_identities(pool, true);
}

TEST_F(MemoryPoolTest, WithoutTrackingNoEventIsCountedButWhatIsLiveIsKnown) {
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.track_statistics = false; });
  const Allocation hit = pool.allocate(1000);
  const Allocation fallback = pool.allocate(2 * kMiB);
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 0u);
  EXPECT_EQ(now.exhaustion_events, 0u);
  EXPECT_EQ(now.active_allocations, 2u);
  EXPECT_EQ(now.used_bytes, 1024u);
  EXPECT_EQ(now.fallback_used_bytes, 2 * kMiB);
  EXPECT_TRUE(pool.release(hit));
  EXPECT_TRUE(pool.release(fallback));
  EXPECT_EQ(pool.statistics().total_deallocations, 0u);
  EXPECT_EQ(pool.statistics().active_allocations, 0u);
}

TEST_F(MemoryPoolTest, IdentitiesHoldAfterRandomOperationsUnderEveryStrategyAndPlacement) {
  for (const Strategy strategy :
       {Strategy::round_robin, Strategy::best_fit, Strategy::least_used, Strategy::most_used}) {
    for (const Placement placement : {Placement::good_fit, Placement::best_fit, Placement::first_fit}) {
      MemoryPool& pool = build(kMiB, 3, [&](PoolConfig& config) {
        config.strategy = strategy;
        config.placement = placement;
      });
      std::mt19937_64 random(5);
      std::vector<Allocation> live;
      for (int step = 0; step < 2000; ++step) {
        if (live.empty() || random() % 100 < 52) {
          live.push_back(pool.allocate(random() % (std::uint64_t{1} << (random() % 21))));
        } else {
          std::swap(live[random() % live.size()], live.back());
          ASSERT_TRUE(pool.release(live.back()));
          live.pop_back();
        }
        if (step % 50 == 0) {
          static_cast<void>(pool.trim());
          expect_identities(pool);
        }
        ASSERT_EQ(pool.statistics().active_allocations, live.size());
      }
      EXPECT_GT(pool.statistics().fallback_allocations, 0u);
      for (const Allocation& allocation : live) {
        EXPECT_TRUE(pool.release(allocation));
      }
      expect_identities(pool);
      EXPECT_EQ(pool.statistics().used_bytes, 0u);
    }
  }
}

TEST_F(MemoryPoolTest, PoolThatCannotBeReservedSaysSo) {
  const testing::CapturedLog log;
  device_->fail(DeviceCall::reserve, 2);
  const std::string message = message_of<InitializationError>([&] { build(kMiB, 4); });
  EXPECT_EQ(message.find("Failed to initialize MetalMemoryPool: 4 heaps of 1MB on device 'simulated'"), 0u) << message;
  ASSERT_EQ(log.records().size(), 1u);
  EXPECT_EQ(log.records()[0].message, "MetalMemoryPool: Failed to create MTLHeap (out of memory)");
  EXPECT_EQ(log.records()[0].level, LogLevel::error);
  EXPECT_EQ(device_->reserved_bytes(), 0u);
  device_->recover();
  EXPECT_EQ(build(kMiB, 4).statistics().total_heaps, 4u);
}

TEST(MemoryPool, EightyGigabyteHeapOfASimulatedDeviceIsServedToItsEnd) {
  const auto device = std::make_shared<SimulatedDevice>(128 * kGiB);
  const std::shared_ptr<MemoryPool> owned = MemoryPool::create(testing::quiet_config(80 * kGiB, 1), device);
  MemoryPool& pool = *owned;
  const Allocation low = pool.allocate(79 * kGiB);
  const Allocation high = pool.allocate(kGiB);
  EXPECT_EQ(high.address - low.address, 79 * kGiB);
  EXPECT_EQ(pool.statistics().used_bytes, 80 * kGiB);
  EXPECT_EQ(pool.statistics().fallback_allocations, 0u);
  EXPECT_TRUE(pool.release(low));
  EXPECT_TRUE(pool.release(high));
}

TEST(MemoryPool, HostMemoryIsWritableAndDisjoint) {
  const std::shared_ptr<MemoryPool> owned =
      MemoryPool::create(testing::quiet_config(4 * kMiB, 2), std::make_shared<HostDevice>());
  MemoryPool& pool = *owned;
  std::vector<Allocation> all;
  for (unsigned char i = 1; i <= 20; ++i) {
    all.push_back(pool.allocate(500'000));
    auto* bytes = static_cast<unsigned char*>(pointer_at(all.back().address));
    std::fill(bytes, bytes + 500'000, i);
  }
  EXPECT_GT(pool.statistics().fallback_allocations, 0u);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto* bytes = static_cast<const unsigned char*>(pointer_at(all[i].address));
    EXPECT_EQ(std::count(bytes, bytes + 500'000, static_cast<unsigned char>(i + 1)), 500'000);
    EXPECT_TRUE(pool.release(all[i]));
  }
}

}  // namespace
}  // namespace tierpool
