#pragma once

#include <cstdint>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

/// Free blocks by address, for the lowest one that fits in O(log n).
///
/// A treap (Seidel and Aragon, "Randomized Search Trees", 1996) whose nodes carry the largest size below them; the
/// priorities are a hash of the node's index, so that equal histories give equal trees. Not thread-safe.
class FreeTree {
 public:
  /// Throws std::bad_alloc.
  explicit FreeTree(BlockNodes& nodes) : nodes_(nodes), largest_(nodes.size()) {}

  void insert(std::uint32_t node) noexcept;
  void remove(std::uint32_t node) noexcept;
  /// To be called after a node of the index has taken another size or offset; its order among the others is the same.
  void resize(std::uint32_t node, std::uint64_t old_units) noexcept;
  /// The lowest block that fits, kNoNode when none does.
  [[nodiscard]] std::uint32_t find_first_fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
    return first_fit(root_, units, alignment_units);
  }
  [[nodiscard]] std::uint64_t largest_units() const noexcept { return largest_below(root_); }

 private:
  [[nodiscard]] static std::uint32_t priority(std::uint32_t node) noexcept;
  [[nodiscard]] std::uint64_t largest_below(std::uint32_t node) const noexcept {
    return node == kNoNode ? 0 : largest_[node];
  }
  void update(std::uint32_t node) noexcept;
  /// Cuts a subtree into the blocks below `offset_units` and the rest.
  void split(std::uint32_t node, std::uint64_t offset_units, std::uint32_t& lower, std::uint32_t& upper) noexcept;
  [[nodiscard]] std::uint32_t join(std::uint32_t lower, std::uint32_t upper) noexcept;
  /// The link that leads from `root` towards `node`.
  [[nodiscard]] std::uint32_t& link_towards(std::uint32_t root, std::uint32_t node) noexcept {
    BlockNode& block = nodes_[root];
    return nodes_[node].offset_units < block.offset_units ? block.free_left : block.free_right;
  }
  /// The link to `node` or to the first ancestor of it that has no block larger than `units` below it: those before it
  /// do not notice when `node` comes, goes or changes within that size.
  [[nodiscard]] std::uint32_t& affected_link(std::uint32_t node, std::uint64_t units) noexcept;
  [[nodiscard]] std::uint32_t removed(std::uint32_t root, std::uint32_t node) noexcept;
  /// Updates the path from `root` down to `node`.
  void refresh(std::uint32_t root, std::uint32_t node) noexcept;
  [[nodiscard]] std::uint32_t first_fit(std::uint32_t root, std::uint64_t units,
                                        std::uint64_t alignment_units) const noexcept;

  BlockNodes& nodes_;
  SparseArray<std::uint64_t> largest_;
  std::uint32_t root_ = kNoNode;
};

}  // namespace tierpool
