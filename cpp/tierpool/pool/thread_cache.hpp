#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tierpool/base/owner_lock.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/magazine.hpp"
#include "tierpool/pool/magazine_layout.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// What the magazines of a pool may hold.
struct MagazineLimits {
  std::uint64_t thread_bytes = 0;  ///< parked by one thread
  std::uint64_t total_bytes = 0;   ///< parked by all threads together
};

/// The magazines of one thread for one pool, and what that thread did there. Every member but `lock` and the limit is
/// guarded by `lock`.
///
/// The limit is kept by the places that magazines have, so that parking a block has nothing to add up. A magazine above
/// the size classes holds one exact size at a time, one that was asked for twice in a row.
class alignas(64) ThreadCache {
 public:
  /// Returns blocks to their heaps; called with the cache's lock held. Throws nothing.
  using GiveBack = std::function<void(std::span<const ParkedBlock>)>;

  /// `give_back` outlives this object. Throws std::bad_alloc.
  ThreadCache(const MagazineLayout& layout, std::size_t heap_count, std::uint32_t lane, const GiveBack& give_back);

  OwnerLock lock;

  /// The thread's lane in the heaps' block allocators.
  [[nodiscard]] std::uint32_t lane() const noexcept { return lane_; }

  /// Fills a parked block into an allocation of `bytes`, but for what the request says. False when there is none.
  [[nodiscard]] bool take(std::uint64_t bytes, Allocation& allocation) noexcept {
    const std::size_t index = layout_.index_for(bytes);
    Magazine& magazine = magazines_[index];
    if (magazine.empty() || (layout_.is_exact(bytes) && magazine.block_bytes() != block_bytes_for(bytes)))
        [[unlikely]] {
      return false;
    }
    const ParkedBlock& block = magazine.pop();
    allocation.address = block.address;
    allocation.block_bytes = allocation.dirty_bytes = magazine.block_bytes();
    allocation.heap_index = block.heap_index;
    allocation.node = block.node;
    allocation.generation = block.generation;
    allocation.magazine = static_cast<std::uint16_t>(index);
    return true;
  }
  /// The magazine where a block of exactly `bytes` may be parked now, nullptr when there is none: then make_room()
  /// helps or the block goes back to its heap.
  [[nodiscard]] Magazine* magazine_with_room(std::uint32_t index, std::uint64_t bytes) noexcept {
    if (index >= layout_.count()) [[unlikely]] {
      return nullptr;
    }
    Magazine& magazine = magazines_[index];
    return magazine.has_room() && magazine.block_bytes() == bytes ? &magazine : nullptr;
  }
  /// Makes it possible to park a block of `bytes`, if need be by taking free places from others or by giving back the
  /// longer parked half of every magazine.
  /// False when no magazine takes that block.
  [[nodiscard]] bool make_room(std::uint32_t index, std::uint64_t bytes) noexcept;
  /// Learns that a heap had to serve `bytes`: the second time in a row, an exact size gets a magazine, whose former
  /// blocks are given back.
  void note_miss(std::uint64_t bytes) noexcept;
  /// How many more blocks of `bytes` to take in advance when a request found none; their magazine has places for them.
  /// None for what is not a class: where a class does not fit, a block may be smaller than its magazine's.
  [[nodiscard]] std::uint32_t extra_blocks(std::uint32_t index, std::uint64_t bytes) noexcept;

  [[nodiscard]] EventCounters& counters_of(std::uint32_t heap_index) noexcept { return counters_[heap_index]; }
  [[nodiscard]] const std::vector<EventCounters>& counters() const noexcept { return counters_; }
  /// Counts of a batch that may still fail: they become the thread's, or nobody's, by settle_pending().
  [[nodiscard]] EventCounters& pending_of(std::uint32_t heap_index) noexcept { return pending_[heap_index]; }
  void settle_pending(bool counts) noexcept;
  void forget_largest_requests() noexcept;

  /// Gives back every parked block and gives up all places. Returns how many blocks that was.
  std::size_t flush() noexcept;
  /// Adds what is parked, by heap.
  void add_parked(std::vector<ParkedTotals>& by_heap) const noexcept;

  /// Changes how much may be parked here. May be called without the lock; what is reserved already stays.
  void set_max_bytes(std::uint64_t bytes) noexcept { max_bytes_.store(bytes, std::memory_order_relaxed); }
  /// Whether more is reserved than may be parked. May be called without the lock.
  [[nodiscard]] bool is_over_limit() const noexcept {
    return reserved_bytes_.load(std::memory_order_relaxed) > max_bytes_.load(std::memory_order_relaxed);
  }

 private:
  [[nodiscard]] std::span<Magazine> magazines() const noexcept { return {magazines_.get(), layout_.count()}; }
  [[nodiscard]] bool grow(Magazine& magazine, std::uint64_t place_count) noexcept;
  void evict_oldest(Magazine& magazine, std::uint32_t count) noexcept;
  [[nodiscard]] std::uint64_t room_bytes() const noexcept;

  const MagazineLayout layout_;
  const std::uint32_t lane_;
  std::unique_ptr<Magazine[]> magazines_;
  std::vector<EventCounters> counters_;  // by heap
  std::vector<EventCounters> pending_;   // likewise
  std::atomic<std::uint64_t> max_bytes_{0};
  std::atomic<std::uint64_t> reserved_bytes_{0};                           // by the places of all magazines
  std::array<std::uint64_t, MagazineLayout::kExactSlots> missed_bytes_{};  // what each exact slot was last asked for
  const GiveBack& give_back_;
};

}  // namespace tierpool
