// Eight threads allocate and release, also what others allocated, while one takes snapshots and another trims.
// TIERPOOL_STRESS_OPERATIONS sets the operations per thread; one operation is one allocation or one release.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "support/pool_fixture.hpp"
#include "support/threads.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

constexpr std::size_t kThreads = 8;
constexpr std::size_t kOwnSlots = 24;
constexpr std::size_t kSharedSlots = 64;

[[nodiscard]] std::uint64_t operations_per_thread() {
  const char* text = std::getenv("TIERPOOL_STRESS_OPERATIONS");
  return text == nullptr ? 1'000'000 : std::stoull(text);
}

/// Cheap and good enough (xorshift64, Marsaglia 2003); a generator of the standard library would cost more than a call.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  [[nodiscard]] std::uint64_t operator()() noexcept {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  std::uint64_t state_;
};

/// Where threads leave allocations for each other.
class Exchange {
 public:
  /// Swaps with a slot, unless someone else does so now.
  void swap(std::uint64_t index, Allocation& allocation) {
    Slot& slot = slots_[index % kSharedSlots];
    if (!slot.busy.test_and_set(std::memory_order_acquire)) {
      std::swap(slot.allocation, allocation);
      slot.busy.clear(std::memory_order_release);
    }
  }

 private:
  struct Slot {
    std::atomic_flag busy;
    Allocation allocation;
  };
  std::array<Slot, kSharedSlots> slots_;
};

/// What one thread did, to be compared with what the pool counted.
struct Tally {
  std::uint64_t allocations = 0;
  std::uint64_t fallbacks = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t refused_releases = 0;
};

class Stress {
 public:
  /// Sizes are log-uniform up to a quarter of a heap: the heaps run full now and then.
  Stress(std::shared_ptr<Device> device, std::uint64_t heap_size_bytes, bool magazines)
      : pool_(MemoryPool::create(config(heap_size_bytes, magazines), std::move(device))),
        size_bits_(static_cast<std::uint64_t>(std::bit_width(heap_size_bytes)) - 2) {}

  void run() {
    std::thread snapshots([this] { watch(); });
    std::thread trims([this] { trim(); });
    testing::run_threads(kThreads, [this](std::size_t thread) { work(thread); });
    done_ = true;
    snapshots.join();
    trims.join();
    check_at_rest();
  }

 private:
  static PoolConfig config(std::uint64_t heap_size_bytes, bool magazines) {
    PoolConfig config = testing::quiet_config(heap_size_bytes, 4);
    config.magazines = magazines;
    return config;
  }

  void work(std::size_t thread) {
    Random random(thread + 1);
    std::array<Allocation, kOwnSlots> own;
    Tally tally;
    for (std::uint64_t operation = operations_per_thread(); operation > 0; --operation) {
      const std::uint64_t dice = random();
      Allocation& slot = own[dice % kOwnSlots];
      if (slot) {
        tally.refused_releases += pool_->release(slot) ? 0 : 1;
        slot = Allocation{};
      } else {
        const bool fits_no_heap = tally.allocations % 4096 == 0;
        const std::uint64_t bytes = (dice >> 32) >> (32 - (dice >> 8) % size_bits_);
        slot = pool_->allocate(fits_no_heap ? pool_->heap_size_bytes() + 1 : bytes);
        tally.allocations += 1;
        tally.fallbacks += slot.is_fallback() ? 1 : 0;
        tally.requested_bytes += slot.requested_bytes;
        if ((dice >> 16) % 4 == 0) {
          exchange_.swap(dice >> 24, slot);
        }
      }
    }
    for (Allocation& slot : own) {
      tally.refused_releases += !slot || pool_->release(slot) ? 0 : 1;
    }
    tallies_[thread] = tally;
  }

  /// What no snapshot may show, however many calls are in flight.
  void watch() {
    PoolStatistics last;
    while (!done_) {
      const PoolStatistics now = pool_->statistics();
      EXPECT_GE(now.total_allocations, last.total_allocations);
      EXPECT_GE(now.total_deallocations, last.total_deallocations);
      EXPECT_GE(now.fallback_allocations, last.fallback_allocations);
      EXPECT_GE(now.exhaustion_events, last.exhaustion_events);
      EXPECT_GE(now.requested_bytes, last.requested_bytes);
      EXPECT_GE(now.peak_used_bytes, last.peak_used_bytes);
      EXPECT_LE(now.total_deallocations, now.total_allocations);
      EXPECT_LE(now.fallback_allocations, now.exhaustion_events);
      EXPECT_LE(now.used_bytes, now.peak_used_bytes);
      EXPECT_LE(now.peak_used_bytes, now.capacity_bytes);
      EXPECT_LE(now.committed_bytes, now.capacity_bytes);
      EXPECT_LE(now.free_bytes, now.capacity_bytes);
      EXPECT_LE(now.active_allocations, kThreads * kOwnSlots + kSharedSlots);
      EXPECT_LE(now.active_heaps, now.total_heaps);
      last = now;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (::testing::Test::HasFailure()) {
        return;
      }
    }
  }

  void trim() {
    while (!done_) {
      trimmed_bytes_ += pool_->trim();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  void check_at_rest() {
    testing::expect_identities(*pool_);
    Tally all;
    for (const Tally& tally : tallies_) {
      all.allocations += tally.allocations;
      all.fallbacks += tally.fallbacks;
      all.requested_bytes += tally.requested_bytes;
      all.refused_releases += tally.refused_releases;
    }
    EXPECT_EQ(all.refused_releases, 0u);
    for (std::uint64_t index = 0; index < kSharedSlots; ++index) {
      Allocation left;
      exchange_.swap(index, left);
      EXPECT_TRUE(!left || pool_->release(left));
    }
    testing::expect_identities(*pool_);
    const PoolStatistics now = pool_->statistics();
    EXPECT_EQ(now.total_allocations, all.allocations);
    EXPECT_EQ(now.total_deallocations, all.allocations);
    EXPECT_EQ(now.fallback_allocations, all.fallbacks);
    EXPECT_EQ(now.exhaustion_events, all.fallbacks);
    EXPECT_EQ(now.requested_bytes, all.requested_bytes);
    EXPECT_EQ(now.active_allocations, 0u);
    EXPECT_EQ(now.used_bytes, 0u);
    EXPECT_EQ(now.fallback_used_bytes, 0u);
    trimmed_bytes_ += pool_->trim();  // also empties the magazines
    EXPECT_EQ(pool_->statistics().cached_bytes, 0u);
    for (const HeapStatistics& heap : pool_->heaps()) {
      EXPECT_EQ(heap.free_block_count, 1u) << "heap " << heap.index;
      EXPECT_EQ(heap.largest_free_bytes, heap.capacity_bytes) << "heap " << heap.index;
    }
    EXPECT_GT(all.allocations, all.fallbacks) << "the heaps took part";
    EXPECT_GT(all.fallbacks, 0u) << "the fallback took part";
    EXPECT_GT(trimmed_bytes_, 0u) << "the trims took part";
  }

  const std::shared_ptr<MemoryPool> pool_;
  const std::uint64_t size_bits_;
  Exchange exchange_;
  std::array<Tally, kThreads> tallies_;
  std::uint64_t trimmed_bytes_ = 0;
  std::atomic<bool> done_{false};
};

class MemoryPoolStress : public ::testing::TestWithParam<bool> {};

TEST_P(MemoryPoolStress, CountersAndBlocksStayTrueOnASimulatedDevice) {
  const auto device = std::make_shared<SimulatedDevice>(kGiB, testing::kGranule);
  Stress(device, kMiB, GetParam()).run();
  testing::expect_all_given_back(*device);
}

TEST_P(MemoryPoolStress, CountersAndBlocksStayTrueOnTheHostDevice) {
  Stress(std::make_shared<HostDevice>(), 4 * kMiB, GetParam()).run();
}

INSTANTIATE_TEST_SUITE_P(Magazines, MemoryPoolStress, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

}  // namespace
}  // namespace tierpool
