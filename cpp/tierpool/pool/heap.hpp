#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tierpool/base/sparse_array.hpp"
#include "tierpool/base/spin_lock.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/commit_map.hpp"
#include "tierpool/pool/device_memory.hpp"
#include "tierpool/pool/heap_selection.hpp"
#include "tierpool/pool/magazine.hpp"
#include "tierpool/pool/pool_statistics.hpp"
#include "tierpool/pool/used_bytes.hpp"

namespace tierpool {

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
  /// Leaves the addresses and what stands behind them to whoever may still use them, for good.
  void abandon() noexcept { released_ = true; }
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
    ByteLimit* commit_limit = nullptr;  ///< on whole granules committed; outlives the heap
    DeviceMemory* memory = nullptr;     ///< counts whole granules committed; outlives the heap
    /// Waits until streams have done with what came back, to end the reservation; false where that cannot be known.
    /// Without it the whole device is waited for. Not called by the destructor.
    std::function<bool()> await_streams = nullptr;
  };

  /// Reserves addresses, commits nothing. Throws DeviceError and std::bad_alloc. `device` and `used` outlive the heap.
  Heap(Device& device, UsedBytes& used, const Options& options);
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  enum class TakeResult { taken, full, needs_commit };
  struct TakeOptions {
    std::uint64_t block_bytes = 0;  ///< size of the block, if above the requested bytes
    std::uint64_t alignment_bytes = kUnitBytes;
    bool may_commit = true;  ///< whether to wait for the device when the block has to be committed
    bool counted = true;     ///< whether the statistics learn of it now; otherwise by count()
    std::uint32_t lane = 0;  ///< the calling thread's
  };
  /// A block for `request`, whose requested_bytes and holder are read and whose other fields are filled in, but for the
  /// magazine. needs_commit when the block would have to be committed and must not be; nothing has changed then. A
  /// commit that fails undoes the block: full.
  [[nodiscard]] TakeResult take(Allocation& request, const TakeOptions& options) noexcept;
  /// Takes up to `blocks.size()` blocks for a magazine, as far as committed memory has them. Returns how many.
  [[nodiscard]] std::size_t take_parked(std::uint64_t block_bytes, std::uint32_t lane,
                                        std::span<ParkedBlock> blocks) noexcept;
  /// Counts a block taken uncounted.
  void count(const Allocation& allocation) noexcept;
  /// Gives back a block taken uncounted.
  void undo(const Allocation& allocation) noexcept;
  /// Gives back those of the blocks, which were parked, that are this heap's. `are_unused`: whether no stream has work
  /// left on them.
  void give_back(std::span<const ParkedBlock> blocks, bool are_unused = false) noexcept;
  /// Makes the handle of a live block stale and counts its release, but keeps the block taken, as a parked one, until
  /// give_back(): memory that streams may still use. Empty for an allocation that is not live; nothing changes then.
  [[nodiscard]] std::optional<ParkedBlock> defer(const Allocation& allocation) noexcept;
  struct ReleaseOptions {
    /// Raised before the lock goes when the reservation has to end behind it, and lowered when it has.
    std::atomic<std::uint64_t>& ends_late;
    /// Whether the tail of the lane's stream was marked behind the last use.
    bool behind_tail = false;
  };
  [[nodiscard]] ReleaseResult release(const Allocation& allocation, const ReleaseOptions& options) noexcept;
  /// As close(), and says how many allocations are live; from here on release() marks each as an orphan's.
  [[nodiscard]] std::uint64_t orphan() noexcept;

  /// Whether the allocation is live here. Lock-free for whoever holds it.
  [[nodiscard]] bool is_live(const Allocation& allocation) const noexcept {
    return contains(allocation.address) && blocks_.is_live(allocation.node, allocation.generation);
  }
  /// Makes the handle of a live allocation stale and returns its block as it is parked. Lock-free for whoever holds it.
  [[nodiscard]] ParkedBlock park(const Allocation& allocation) noexcept {
    return {allocation.address, allocation.heap_index, allocation.node,
            blocks_.renew(allocation.node, allocation.generation)};
  }
  /// Makes other copies of a live allocation's handle stale; returns the generation of the one that is left. Lock-free
  /// for whoever holds it.
  [[nodiscard]] std::uint32_t renew(const Allocation& allocation) noexcept {
    return blocks_.renew(allocation.node, allocation.generation);
  }
  /// Lets find_array() find an array, or no longer; other holders are none of its business. Lock-free for the holder.
  void note_array(const Allocation& allocation) noexcept {
    if (allocation.holder == Holder::array) {
      array_nodes_[offset_of(allocation.address) / kUnitBytes] = allocation.node + 1;
    }
  }
  void forget_array(const Allocation& allocation) noexcept {
    if (allocation.holder == Holder::array) {
      array_nodes_[offset_of(allocation.address) / kUnitBytes] = 0;
    }
  }

  /// The live array at that address; empty when there is none. Buffers are not found: they are released by handle.
  /// Lock-free for whoever holds the array.
  [[nodiscard]] Allocation find_array(std::uint64_t address) noexcept;
  [[nodiscard]] bool contains(std::uint64_t address) const noexcept {
    return address - reservation_.address() < capacity_bytes_;
  }

  /// Commits a range of the heap; live blocks in it are untouched. Returns the bytes newly committed; `complete` tells
  /// whether the whole range is.
  std::uint64_t warm_up(std::uint64_t offset_bytes, std::uint64_t bytes, bool& complete) noexcept;
  struct TrimOptions {
    std::uint64_t enough_bytes = std::numeric_limits<std::uint64_t>::max();  ///< stop when so much was given back
    /// Asked with no lock held, when free blocks can be handed out no more: whether the device is done with them.
    std::function<bool()> is_unused;
  };
  /// Decommits granules no block lives in, from the high end down. Returns the bytes given back.
  std::uint64_t trim(bool& refused, const TrimOptions& options);
  std::uint64_t trim(bool& refused) { return trim(refused, TrimOptions{}); }
  /// No more blocks; the reservation goes with the last live one, at once when there is none.
  void close() noexcept;

  /// Blocks that have come back so far and may have work of a stream left on them, but for those released behind its
  /// tail.
  [[nodiscard]] std::uint64_t returned_count() const noexcept {
    return returned_count_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] HeapView view() const noexcept;
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }
  /// With what the thread caches know of this heap: their event counters and what is parked in them; and what is
  /// deferred.
  [[nodiscard]] HeapStatistics statistics(const EventCounters& cached, const ParkedTotals& parked,
                                          const ParkedTotals& pending = {}) const;
  void reset_statistics() noexcept;

  /// Held over fork, in this order: first every heap's lock_commits(), then every lock().
  void lock_commits() { commits_.lock(); }
  void unlock_commits() { commits_.unlock(); }
  void lock() { lock_.lock(); }
  void unlock() { lock_.unlock(); }

 private:
  [[nodiscard]] std::uint64_t offset_of(std::uint64_t address) const noexcept {
    return address - reservation_.address();
  }
  [[nodiscard]] TakeResult take_committed(Allocation& request, const TakeOptions& options) noexcept;
  [[nodiscard]] TakeResult take_and_commit(Allocation& request, const TakeOptions& options) noexcept;
  [[nodiscard]] bool finish_commit(Allocation& request, bool complete, bool counted) noexcept;
  // With the lock held.
  [[nodiscard]] Block find_block(std::uint64_t bytes, std::uint64_t alignment_bytes, std::uint32_t lane) noexcept;
  void hand_out(const Block& block, Allocation& request) noexcept;
  /// The leading bytes of a block that may be non-zero; from now on all of them.
  [[nodiscard]] std::uint64_t note_written(const Block& block) noexcept;
  void add_taken(std::uint64_t bytes) noexcept;
  void add_to_counters(const Allocation& allocation) noexcept;
  void subtract_taken(std::uint64_t bytes) noexcept;
  void take_back(const Allocation& allocation) noexcept;
  /// Whether nothing needs the reservation any more, once. The caller releases it without the lock.
  [[nodiscard]] bool should_end_reservation() noexcept;
  /// Waits for whatever streams still do there. Where that is impossible the reservation stays for a later close(), and
  /// for good after the last.
  void end_reservation() noexcept;
  [[nodiscard]] bool have_streams_finished() noexcept;
  void publish_view() noexcept;

  Device& device_;
  UsedBytes& used_;
  const std::uint32_t index_;
  const std::uint64_t capacity_bytes_;
  const std::function<bool()> await_streams_;
  // By first unit: node + 1 of the array that begins there, whose holder alone touches the entry.
  SparseArray<std::uint32_t> array_nodes_;
  OwnedReservation reservation_;
  CommitMap commits_;
  std::atomic<std::uint64_t> used_hint_{0};
  std::atomic<std::uint64_t> largest_free_hint_{0};
  std::atomic<std::uint64_t> returned_count_{0};  // written with the lock held

  mutable SpinLock lock_;  // guards all below; never held over a call of the device
  BlockAllocator blocks_;
  EventCounters counters_;         // of what bypassed the thread caches
  std::uint64_t taken_count_ = 0;  // counted live blocks and parked ones
  std::uint64_t taken_bytes_ = 0;
  std::uint64_t peak_used_bytes_ = 0;
  std::uint64_t written_end_bytes_ = 0;  // no byte from here on was ever handed out
  std::uint32_t pins_ = 0;               // warm-ups that use the reservation right now
  bool closed_ = false;
  bool orphaned_ = false;
  bool reservation_ended_ = false;
};

}  // namespace tierpool
