#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// What the device served directly because no heap could: given back at its last release, never cached. Thread-safe.
///
/// Exhaustion is counted here too, in one step with the allocation it leads to, so that no reset comes in between.
class FallbackAllocations {
 public:
  /// `device` outlives this object.
  FallbackAllocations(Device& device, bool track_statistics) : device_(device), track_statistics_(track_statistics) {}
  ~FallbackAllocations() = default;
  FallbackAllocations(const FallbackAllocations&) = delete;
  FallbackAllocations& operator=(const FallbackAllocations&) = delete;

  /// Memory for `request`, whose requested_bytes and holder are read and whose other fields are filled in. False when
  /// the device has none.
  [[nodiscard]] bool take(Allocation& request, std::uint64_t alignment_bytes, bool counted) noexcept;
  /// Counts an exhaustion that led to no allocation.
  void count_exhaustion() noexcept;
  /// Counts an allocation taken uncounted.
  void count(const Allocation& allocation) noexcept;
  /// Gives back an allocation taken uncounted; only its exhaustion remains.
  void undo(const Allocation& allocation) noexcept;
  /// False for an allocation that is not live here; nothing changes then.
  [[nodiscard]] bool release(const Allocation& allocation) noexcept;
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

  /// Counts an exhaustion; with the lock held.
  void add_exhaustion() noexcept { exhaustion_events_ += track_statistics_ ? 1 : 0; }
  /// Forgets a live allocation and gives its memory back. False when it is not live.
  [[nodiscard]] bool remove(const Allocation& allocation, bool counted) noexcept;

  Device& device_;
  const bool track_statistics_;
  std::atomic<std::uint64_t> live_count_{0};  // lets find_array() answer without the lock while there is nothing

  mutable std::mutex mutex_;  // guards all below
  std::unordered_map<std::uint64_t, Record> records_;
  std::uint32_t next_generation_ = 0;
  AllocationCounters counters_;
  AllocationCounters baseline_;
  std::uint64_t exhaustion_events_ = 0;
  std::uint64_t exhaustion_baseline_ = 0;
};

}  // namespace tierpool
