#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tierpool/pool/block_node.hpp"
#include "tierpool/pool/free_bins.hpp"
#include "tierpool/pool/free_tree.hpp"
#include "tierpool/pool/node_lanes.hpp"

namespace tierpool {

/// Which free block of a heap serves a request. Not to be confused with Strategy, which picks the heap.
enum class Placement {
  good_fit,   ///< a block of nearly the right size, in O(1); the smallest requests at the low end while there is room
  best_fit,   ///< the smallest block that fits
  first_fit,  ///< the lowest block that fits
};

[[nodiscard]] std::string_view to_string(Placement placement) noexcept;
/// Throws ConfigError naming the nearest known placement.
[[nodiscard]] Placement parse_placement(std::string_view name);
[[nodiscard]] const std::vector<std::string_view>& placement_names();

/// A piece of a heap: offset and size, never a pointer. The generation tells a live block from a stale one.
struct Block {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::uint32_t node = kNoNode;
  std::uint32_t generation = 0;

  explicit operator bool() const noexcept { return node != kNoNode; }
};

/// Cuts a range of `capacity_bytes` into blocks. Offsets in, offsets out: it never touches the memory it manages.
///
/// Free neighbours are joined at once. Blocks are cut from the low end of the free block chosen. All calls are O(1) but
/// first-fit (O(log n)), best-fit (the length of one bin) and a failing search (likewise). Not thread-safe.
class BlockAllocator {
 public:
  /// `capacity_bytes` is rounded down to whole units. Throws std::bad_alloc.
  BlockAllocator(std::uint64_t capacity_bytes, Placement placement);
  ~BlockAllocator() = default;
  BlockAllocator(const BlockAllocator&) = delete;  // the free indexes refer to the nodes
  BlockAllocator& operator=(const BlockAllocator&) = delete;

  /// A block of at least `bytes` (zero takes one unit) at a multiple of `alignment_bytes` (a power of two), or an
  /// empty block when no free block fits.
  /// Threads that use different lanes do not disturb each other with what they do to their blocks.
  [[nodiscard]] Block allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = kUnitBytes,
                               std::uint32_t lane = 0) noexcept;
  /// Returns the bytes given back; 0 for a block that is not live, which changes nothing.
  std::uint64_t free(std::uint32_t node, std::uint32_t generation) noexcept;

  [[nodiscard]] bool is_live(std::uint32_t node, std::uint32_t generation) const noexcept {
    // Handles of live blocks alone have odd generations.
    return node < generations_.size() && generation_of(node) == generation;
  }
  /// Makes the handle of a live block stale without freeing the block, and returns the generation of its new handle.
  /// Lock-free: whoever holds the only valid handle may call it beside any other call.
  std::uint32_t renew(std::uint32_t node, std::uint32_t generation) noexcept {
    const std::uint32_t renewed = generation + 2;
    generations_[node].store(renewed, std::memory_order_relaxed);
    return renewed;
  }
  /// The live block that begins at `offset_bytes` and has that node; empty when there is none. Lock-free for whoever
  /// holds the block.
  [[nodiscard]] Block find(std::uint32_t node, std::uint64_t offset_bytes) const noexcept;
  /// Takes every free block of at least `min_bytes` out of circulation, for trimming. Throws std::bad_alloc, unchanged.
  [[nodiscard]] std::vector<Block> take_free_blocks(std::uint64_t min_bytes);

  [[nodiscard]] Placement placement() const noexcept { return placement_; }
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_units_ * kUnitBytes; }
  [[nodiscard]] std::uint64_t used_bytes() const noexcept { return used_units_ * kUnitBytes; }
  [[nodiscard]] std::uint64_t free_bytes() const noexcept { return (capacity_units_ - used_units_) * kUnitBytes; }
  /// No free block is larger. O(1).
  [[nodiscard]] std::uint64_t largest_free_upper_bound_bytes() const noexcept;
  /// The largest free block; scans one bin.
  [[nodiscard]] std::uint64_t largest_free_bytes() const noexcept;
  [[nodiscard]] std::uint64_t live_count() const noexcept { return live_count_; }
  [[nodiscard]] std::uint64_t free_block_count() const noexcept { return free_count_; }

  /// Walks everything and describes the first broken invariant; empty when all hold. For tests.
  [[nodiscard]] std::string find_inconsistency() const;

 private:
  [[nodiscard]] std::uint32_t generation_of(std::uint32_t node) const noexcept {
    return generations_[node].load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool is_used(std::uint32_t node) const noexcept { return (generation_of(node) & 1U) != 0; }
  /// Between used and free.
  void flip(std::uint32_t node) noexcept {
    generations_[node].store(generation_of(node) + 1, std::memory_order_relaxed);
  }
  [[nodiscard]] bool has_room_for_nodes(std::uint64_t count) const noexcept {
    // Short of nodes only where 32 bits end before the heap does.
    return lanes_.size() >= capacity_units_ || lanes_.free_count() >= count;
  }
  [[nodiscard]] std::uint32_t new_node(std::uint32_t lane) noexcept;
  void recycle_node(std::uint32_t node) noexcept;
  [[nodiscard]] std::uint32_t find_free(std::uint64_t units, std::uint64_t alignment_units) const noexcept;
  void insert_free(std::uint32_t node) noexcept;
  void remove_free(std::uint32_t node) noexcept;
  void resize_free(std::uint32_t node, std::uint64_t old_units) noexcept;
  /// Makes a block of `units` that begins `gap_units` into a free block; the rest stays free.
  [[nodiscard]] std::uint32_t take_from(std::uint32_t node, std::uint64_t units, std::uint64_t gap_units,
                                        std::uint32_t lane) noexcept;
  /// Adds a block to the free ones, joined with its free neighbours.
  void join_free(std::uint32_t node) noexcept;
  /// Cuts the first or the last `units` off `node` and returns the new node they became.
  [[nodiscard]] std::uint32_t cut_head(std::uint32_t node, std::uint64_t units, std::uint32_t lane) noexcept;
  [[nodiscard]] std::uint32_t cut_tail(std::uint32_t node, std::uint64_t units, std::uint32_t lane) noexcept;
  /// Appends the block behind `node`, or the one before it, to it.
  void absorb_next(std::uint32_t node) noexcept;
  void absorb_previous(std::uint32_t node) noexcept;
  /// Makes `first` and `second` neighbours; either may be kNoNode, the end of the heap.
  void link(std::uint32_t first, std::uint32_t second) noexcept;
  [[nodiscard]] Block block_at(std::uint32_t node) const noexcept;

  std::uint64_t capacity_units_;
  Placement placement_;
  std::uint64_t used_units_ = 0;
  std::uint64_t live_count_ = 0;
  std::uint64_t free_count_ = 0;
  NodeLanes lanes_;
  BlockNodes nodes_;
  // Odd while used; never reset, so that a stale handle stays stale.
  SparseArray<std::atomic<std::uint32_t>> generations_;
  std::uint32_t first_node_ = kNoNode;  // the block at offset 0
  FreeBins bins_;
  std::optional<FreeTree> tree_;  // first-fit only
};

}  // namespace tierpool
