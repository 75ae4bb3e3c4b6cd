#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::testing {

inline constexpr std::uint64_t kGranule = 64 * kKiB;

/// A configuration with nothing warmed up and nothing logged.
[[nodiscard]] inline PoolConfig quiet_config(std::uint64_t heap_size_bytes, std::uint32_t num_heaps) {
  PoolConfig config;
  config.heap_size_bytes = heap_size_bytes;
  config.num_heaps = num_heaps;
  config.warmup_bytes = {};
  config.log_exhaustion = false;
  config.magazines = false;
  return config;
}

/// The identities and bounds of the statistics table, for a pool with no call in flight. `since_reset`: whether
/// something was live when the counters began.
inline void expect_identities(const MemoryPool& pool, bool since_reset = false) {
  const PoolStatistics now = pool.statistics();
  std::uint64_t used = 0;
  std::uint64_t hits = 0;
  std::uint64_t live = 0;
  std::uint64_t cached = 0;
  std::uint64_t pending = 0;
  std::uint64_t active_heaps = 0;
  std::uint64_t largest_free = 0;
  for (const HeapStatistics& heap : pool.heaps()) {
    used += heap.used_bytes;
    hits += heap.counters.allocations;
    live += heap.live_count;
    cached += heap.cached_bytes;
    pending += heap.pending_bytes;
    active_heaps += heap.live_count != 0 ? 1 : 0;
    largest_free = std::max(largest_free, heap.largest_free_bytes);
    EXPECT_EQ(heap.used_bytes + heap.cached_bytes + heap.pending_bytes + heap.free_bytes, heap.capacity_bytes)
        << "heap " << heap.index;
    EXPECT_LE(heap.used_bytes, heap.peak_used_bytes);
    EXPECT_LE(heap.peak_used_bytes, heap.capacity_bytes);
    EXPECT_LE(heap.largest_free_bytes, heap.free_bytes);
    EXPECT_LE(heap.committed_bytes, heap.capacity_bytes);
  }
  EXPECT_EQ(now.total_allocations, hits + now.fallback_allocations);
  EXPECT_LE(now.fallback_allocations, now.exhaustion_events);
  if (!since_reset && pool.config().track_statistics) {
    EXPECT_EQ(now.total_allocations - now.total_deallocations, now.active_allocations);
  }
  EXPECT_GE(now.active_allocations, live);
  EXPECT_LE(now.active_arrays, now.active_allocations);
  // A heap's last granule may reach past its end.
  EXPECT_GE(now.reserved_bytes, now.committed_bytes + now.fallback_used_bytes + now.fallback_pending_bytes);
  EXPECT_LE(now.reserved_bytes, now.peak_reserved_bytes);
  EXPECT_LE(
      now.used_bytes + now.cached_bytes + now.pending_bytes + now.fallback_used_bytes + now.fallback_pending_bytes,
      now.peak_taken_bytes);
  EXPECT_EQ(now.used_bytes, used);
  EXPECT_EQ(now.cached_bytes, cached);
  EXPECT_EQ(now.pending_bytes, pending);
  EXPECT_EQ(now.used_bytes + now.cached_bytes + now.pending_bytes + now.free_bytes, now.capacity_bytes);
  EXPECT_LE(now.used_bytes, now.peak_used_bytes);
  EXPECT_LE(now.peak_used_bytes, now.capacity_bytes);
  // Lanes have more addresses than memory.
  EXPECT_EQ(now.largest_free_bytes, std::min(largest_free, now.free_bytes));
  EXPECT_EQ(now.active_heaps, active_heaps);
  EXPECT_LE(now.active_heaps, now.total_heaps);
  for (const double ratio : {now.hit_rate(), now.fallback_rate(), now.utilization(), now.fragmentation()}) {
    EXPECT_GE(ratio, 0.0);
    EXPECT_LE(ratio, 1.0);
  }
}

/// Whatever a pool was given is back, and nothing was given back twice.
inline void expect_all_given_back(const SimulatedDevice& device) {
  EXPECT_EQ(device.reserved_bytes(), 0u);
  EXPECT_EQ(device.committed_bytes(), 0u);
  EXPECT_EQ(device.direct_bytes(), 0u);
  EXPECT_EQ(device.misuse_count(), 0u);
}

/// A pool on a simulated device of its own. Whatever a test does, the device must be as empty at its end as before.
class PoolTest : public ::testing::Test {
 protected:
  explicit PoolTest(std::uint64_t device_bytes = kGiB)
      : device_(std::make_shared<SimulatedDevice>(device_bytes, kGranule)) {}
  ~PoolTest() override {
    drop_pool();
    expect_all_given_back(*device_);
  }

  MemoryPool& build(const PoolConfig& config) {
    drop_pool();
    pool_ = MemoryPool::create(config, device_);
    return *pool_;
  }
  MemoryPool& build(std::uint64_t heap_size_bytes, std::uint32_t num_heaps,
                    const std::function<void(PoolConfig&)>& adjust = nullptr) {
    PoolConfig config = quiet_config(heap_size_bytes, num_heaps);
    if (adjust) {
      adjust(config);
    }
    return build(config);
  }

  /// Has the allocation released with the pool, if it is still live then.
  const Allocation& keep(const Allocation& allocation) { return kept_.emplace_back(allocation); }

  std::shared_ptr<SimulatedDevice> device_;
  std::shared_ptr<MemoryPool> pool_;

 private:
  void drop_pool() {
    for (const Allocation& allocation : kept_) {
      static_cast<void>(pool_->release(allocation));
    }
    kept_.clear();
    pool_.reset();
  }

  std::deque<Allocation> kept_;
};

/// The message of the exception of type `Error` that `call` throws; empty when it throws none.
template <typename Error>
[[nodiscard]] std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace tierpool::testing
