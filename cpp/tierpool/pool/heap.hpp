#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>

#include "tierpool/base/sparse_table.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/commit_map.hpp"
#include "tierpool/pool/heap_selection.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// Bytes of the counted live blocks of all heaps of a pool, and the most they ever were since reset. Thread-safe.
class UsedBytes {
 public:
  void add(std::uint64_t bytes) noexcept;
  void subtract(std::uint64_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  /// Never more than peak() read afterwards.
  [[nodiscard]] std::uint64_t used() noexcept;
  /// May fall below used() while reset_peak() runs.
  [[nodiscard]] std::uint64_t peak() const noexcept { return peak_.load(std::memory_order_relaxed); }
  void reset_peak() noexcept;

 private:
  void raise_peak(std::uint64_t used) noexcept;

  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> peak_{0};
};

/// Addresses of a device, given back by release() or by the destructor.
class OwnedReservation {
 public:
  /// Throws DeviceError. `device` outlives this object.
  OwnedReservation(Device& device, std::uint64_t bytes) : device_(device), reservation_(device.reserve(bytes)) {}
  ~OwnedReservation() { release(); }
  OwnedReservation(const OwnedReservation&) = delete;
  OwnedReservation& operator=(const OwnedReservation&) = delete;

  /// Does nothing the second time. Not thread-safe.
  void release() noexcept {
    if (!std::exchange(released_, true)) {
      device_.release(reservation_);
    }
  }
  [[nodiscard]] const Reservation& get() const noexcept { return reservation_; }
  [[nodiscard]] std::uint64_t address() const noexcept { return reservation_.address; }

 private:
  Device& device_;
  const Reservation reservation_;
  bool released_ = false;
};

/// One reservation, the block allocator that cuts it up, and their lock. Every call is thread-safe.
class Heap {
 public:
  struct Options {
    std::uint32_t index = 0;
    std::uint64_t capacity_bytes = 0;
    Placement placement = Placement::good_fit;
    bool track_statistics = true;
  };

  /// Reserves addresses, commits nothing. Throws DeviceError and std::bad_alloc. `device` and `used` outlive the heap.
  Heap(Device& device, UsedBytes& used, const Options& options);
  ~Heap() = default;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  enum class TakeResult { taken, full, needs_commit };
  struct TakeOptions {
    std::uint64_t alignment_bytes = kUnitBytes;
    bool may_commit = true;  ///< whether to wait for the device when the block has to be committed
    bool counted = true;     ///< whether the statistics learn of it now; otherwise by count()
  };
  /// A block for `request`, whose requested_bytes and holder are read and whose other fields are filled in.
  /// needs_commit when the block would have to be committed and must not be; nothing has changed then. A commit that
  /// fails undoes the block: full.
  [[nodiscard]] TakeResult take(Allocation& request, const TakeOptions& options) noexcept;
  /// Counts a block taken uncounted.
  void count(const Allocation& allocation) noexcept;
  /// Gives back a block taken uncounted.
  void undo(const Allocation& allocation) noexcept;
  /// False for an allocation that is not live here; nothing changes then.
  [[nodiscard]] bool release(const Allocation& allocation) noexcept;

  /// The live array at that address; empty when there is none. Buffers are not found: they are released by handle.
  [[nodiscard]] Allocation find_array(std::uint64_t address) noexcept;
  [[nodiscard]] bool contains(std::uint64_t address) const noexcept {
    return address - reservation_.address() < capacity_bytes_;
  }

  /// Commits a range of the heap; live blocks in it are untouched. Returns the bytes newly committed; `complete` tells
  /// whether the whole range is.
  std::uint64_t warm_up(std::uint64_t offset_bytes, std::uint64_t bytes, bool& complete) noexcept;
  /// Decommits the granules no block lives in. Returns the bytes given back.
  std::uint64_t trim(bool& refused);
  /// No more blocks; the reservation goes with the last live one, at once when there is none.
  void close() noexcept;

  [[nodiscard]] HeapView view() const noexcept;
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }
  [[nodiscard]] HeapStatistics statistics() const;
  void reset_statistics() noexcept;

  /// Held over fork, in this order: first every heap's lock_commits(), then every lock().
  void lock_commits() { commits_.lock(); }
  void unlock_commits() { commits_.unlock(); }
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  [[nodiscard]] std::uint64_t offset_of(const Allocation& allocation) const noexcept {
    return allocation.address - reservation_.address();
  }
  /// Counts a block; with the lock held.
  void add_to_counters(const Allocation& allocation) noexcept;
  /// Fills `request` in from a block; with the lock held.
  void hand_out(const Block& block, Allocation& request) noexcept;
  /// Frees a live block; with the lock held. True when the reservation has to end now.
  [[nodiscard]] bool take_back(const Allocation& allocation) noexcept;
  /// Whether nothing needs the reservation any more, once; with the lock held. The caller releases it without the lock.
  [[nodiscard]] bool should_end_reservation() noexcept;
  void publish_view() noexcept;

  UsedBytes& used_;
  const std::uint32_t index_;
  const std::uint64_t capacity_bytes_;
  const bool track_statistics_;
  SparseTable array_nodes_;  // by first unit: node + 1 of the array that begins there; guarded by mutex_
  OwnedReservation reservation_;
  CommitMap commits_;
  std::atomic<std::uint64_t> used_hint_{0};
  std::atomic<std::uint64_t> largest_free_hint_{0};

  mutable std::mutex mutex_;  // guards all below
  BlockAllocator blocks_;
  AllocationCounters counters_;
  AllocationCounters baseline_;
  std::uint64_t peak_used_bytes_ = 0;
  std::uint64_t written_end_bytes_ = 0;  // no byte from here on was ever handed out
  std::uint32_t pins_ = 0;               // warm-ups that use the reservation right now
  bool closed_ = false;
  bool reservation_ended_ = false;
};

}  // namespace tierpool
