#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tierpool/pool/allocation.hpp"

namespace tierpool {

/// Counts of what was handed out and what came back, by one thread or under one lock. An allocation and its release may
/// be counted in different places, so only sums over all of them mean something; arithmetic is modulo 2**64.
struct EventCounters {
  std::uint64_t allocations = 0;
  std::uint64_t deallocations = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t largest_request_bytes = 0;  ///< since reset
  std::uint64_t live_arrays = 0;
  std::uint64_t live_array_bytes = 0;  ///< block bytes

  void count_allocation(std::uint64_t bytes) noexcept {
    ++allocations;
    requested_bytes += bytes;
    if (largest_request_bytes < bytes) [[unlikely]] {
      largest_request_bytes = bytes;
    }
  }
  void add_array(std::uint64_t block_bytes) noexcept {
    ++live_arrays;
    live_array_bytes += block_bytes;
  }
  void subtract_array(std::uint64_t block_bytes) noexcept {
    --live_arrays;
    live_array_bytes -= block_bytes;
  }
  void count_allocation(const Allocation& allocation) noexcept {
    count_allocation(allocation.requested_bytes);
    if (allocation.holder == Holder::array) {
      add_array(allocation.block_bytes);
    }
  }
  void count_deallocation(const Allocation& allocation) noexcept {
    ++deallocations;
    if (allocation.holder == Holder::array) {
      subtract_array(allocation.block_bytes);
    }
  }
  void add(const EventCounters& other) noexcept;
  /// The events since `baseline`, none if they are not tracked; what is live stays.
  [[nodiscard]] EventCounters since(const EventCounters& baseline, bool track_events) const noexcept;
};

/// What waits in magazines, or for streams.
struct ParkedTotals {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};

/// One heap at one moment.
struct HeapStatistics {
  std::uint32_t index = 0;
  std::uint64_t stream = 0;  ///< handle of the stream whose lane the heap is in; 0 for the home lane
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t peak_used_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t largest_free_bytes = 0;
  std::uint64_t committed_bytes = 0;
  std::uint64_t cached_bytes = 0;   ///< parked in magazines
  std::uint64_t pending_bytes = 0;  ///< released, but streams may still use it
  std::uint64_t free_block_count = 0;
  std::uint64_t live_count = 0;
  EventCounters counters;  ///< events since reset

  [[nodiscard]] double utilization() const noexcept;
  /// 1 - largest free block / free bytes; 0 when nothing is free.
  [[nodiscard]] double fragmentation() const noexcept;
};

/// The fallback side of a pool at one moment: events since reset.
struct FallbackStatistics {
  EventCounters counters;
  std::uint64_t exhaustion_events = 0;  ///< every allocation in `counters` is one of them
  std::uint64_t live_count = 0;
  std::uint64_t live_bytes = 0;
};

/// One pool at one moment: integers here, every ratio derived below and nowhere else.
///
/// With no call in flight every field is exact. A snapshot under load never goes backwards or negative, and
/// used <= peak <= capacity holds.
struct PoolStatistics {
  std::uint64_t total_allocations = 0;
  std::uint64_t total_deallocations = 0;
  std::uint64_t fallback_allocations = 0;
  std::uint64_t exhaustion_events = 0;
  std::uint64_t active_allocations = 0;
  std::uint64_t active_arrays = 0;  ///< of the active allocations, those that are NumPy arrays
  std::uint64_t array_bytes = 0;    ///< block bytes of those
  std::uint64_t requested_bytes = 0;
  std::uint64_t largest_allocation_bytes = 0;
  std::uint64_t total_heaps = 0;
  std::uint64_t active_heaps = 0;
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t peak_used_bytes = 0;
  std::uint64_t peak_taken_bytes = 0;  ///< the most taken from heaps and outside them at one moment since reset
  std::uint64_t fallback_used_bytes = 0;
  std::uint64_t committed_bytes = 0;
  std::uint64_t cached_bytes = 0;
  std::uint64_t pending_bytes = 0;           ///< of heaps: released, but streams may still use it
  std::uint64_t fallback_pending_bytes = 0;  ///< the same outside heaps
  std::uint64_t reserved_bytes = 0;          ///< held of the device: whole granules of heaps, and all outside them
  std::uint64_t peak_reserved_bytes = 0;     ///< the most of it since reset
  std::uint64_t device_allocations = 0;      ///< times memory was taken from the device since reset
  std::uint64_t device_frees = 0;            ///< times it was given back
  std::uint64_t stream_lanes = 1;            ///< the home lane and one for each further stream
  std::uint64_t free_bytes = 0;
  std::uint64_t largest_free_bytes = 0;
  std::uint64_t contiguous_free_bytes = 0;  ///< sum over the heaps of the largest free block

  /// Adds one heap's or the fallbacks' share. Used bytes and their peak are the pool's own and not touched.
  void add(const HeapStatistics& heap) noexcept;
  void add(const FallbackStatistics& fallback) noexcept;

  [[nodiscard]] std::uint64_t available_count() const noexcept { return total_heaps - active_heaps; }
  /// Share of allocations that heaps served; 0 when there were none.
  [[nodiscard]] double hit_rate() const noexcept;
  /// Share of allocations the device served; 0 when there were none.
  [[nodiscard]] double fallback_rate() const noexcept;
  [[nodiscard]] double utilization() const noexcept;
  /// Share of the free bytes outside the largest free block of their heap; 0 when nothing is free.
  [[nodiscard]] double fragmentation() const noexcept;
  [[nodiscard]] double average_allocation_bytes() const noexcept;

 private:
  void add(const EventCounters& counters) noexcept;
};

/// One verdict on a pool's statistics, with what to do about it.
struct Finding {
  std::string metric;  ///< "hit_rate", "utilization" or "fallback_rate"
  double value = 0.0;
  std::string verdict;  ///< the guide's word: "excellent" ... "poor", "over-provisioned" ... "critical"
  std::string advice;
};

/// Judges hit rate, utilization and fallback rate, in this order. Without an allocation only utilization is judged.
[[nodiscard]] std::vector<Finding> diagnose(const PoolStatistics& statistics);

}  // namespace tierpool
