#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/device_memory.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// What the device served directly because no heap could: given back at its last release, never cached. Thread-safe.
///
/// Exhaustion is counted here too, in one step with the allocation it leads to, so that no reset comes in between.
class FallbackAllocations {
 public:
  /// `device` outlives this object, as do `memory` and `taken`, which count what it gave.
  FallbackAllocations(Device& device, bool track_statistics, DeviceMemory& memory, UsedBytes& taken)
      : device_(device), track_statistics_(track_statistics), memory_(memory), taken_(taken) {}
  ~FallbackAllocations() = default;
  FallbackAllocations(const FallbackAllocations&) = delete;
  FallbackAllocations& operator=(const FallbackAllocations&) = delete;

  /// Memory for `request`, whose requested_bytes and holder are read and whose other fields are filled in. False when
  /// the device has none.
  [[nodiscard]] bool take(Allocation& request, std::uint64_t alignment_bytes, bool counted) noexcept;
  /// Counts an exhaustion that led to no allocation.
  void count_exhaustion() noexcept { vain_exhaustions_.fetch_add(1, std::memory_order_relaxed); }
  /// Counts an allocation taken uncounted.
  void count(const Allocation& allocation) noexcept;
  /// Gives back an allocation taken uncounted; only its exhaustion remains.
  void undo(const Allocation& allocation) noexcept;
  [[nodiscard]] ReleaseResult release(const Allocation& allocation) noexcept;
  /// What a device gave for one allocation.
  struct Taken {
    std::uint64_t address = 0;
    std::uint64_t block_bytes = 0;
    std::uint64_t alignment_bytes = 0;
  };
  /// Counts a release but keeps the memory until free(), for streams that may still use it. Address 0 for an allocation
  /// that is not live; nothing changes then.
  [[nodiscard]] Taken defer(const Allocation& allocation) noexcept;
  void free(const Taken& taken) noexcept {
    device_.free_direct(taken.address, taken.block_bytes, taken.alignment_bytes);
    memory_.gave_back(taken.block_bytes);
    taken_.subtract(taken.block_bytes);
  }
  /// Says how many allocations are live; from here on release() marks each as an orphan's.
  [[nodiscard]] std::uint64_t orphan() noexcept;
  [[nodiscard]] bool is_live(const Allocation& allocation) const noexcept;
  /// The live array at that address; empty when there is none.
  [[nodiscard]] Allocation find_array(std::uint64_t address) noexcept;

  /// Live figures are unaffected by a reset.
  [[nodiscard]] FallbackStatistics statistics() const;
  void reset_statistics() noexcept;

  /// Held over fork.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Record {
    std::uint64_t block_bytes = 0;
    std::uint64_t alignment_bytes = 0;
    std::uint32_t generation = 0;
    Holder holder = Holder::buffer;
  };

  /// Every counted allocation is one, and every exhaustion that led to none. With the lock held.
  [[nodiscard]] std::uint64_t exhaustion_events() const noexcept {
    return counters_.allocations + vain_exhaustions_.load(std::memory_order_relaxed);
  }
  /// Forgets a live allocation.
  [[nodiscard]] ReleaseResult remove(const Allocation& allocation, bool counted, Taken& taken) noexcept;

  Device& device_;
  const bool track_statistics_;
  DeviceMemory& memory_;
  UsedBytes& taken_;
  std::atomic<std::uint64_t> live_count_{0};  // lets find_array() answer without the lock while there is nothing
  std::atomic<std::uint64_t> vain_exhaustions_{0};

  mutable std::mutex mutex_;  // guards all below
  std::unordered_map<std::uint64_t, Record> records_;
  std::uint32_t next_generation_ = 0;
  bool orphaned_ = false;
  std::uint64_t live_bytes_ = 0;
  EventCounters counters_;
  EventCounters baseline_;
  std::uint64_t exhaustion_baseline_ = 0;
};

}  // namespace tierpool
