#include "tierpool/pool/block_allocator.hpp"

#include <algorithm>
#include <array>
#include <new>

#include "tierpool/base/choice.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 3> kPlacementNames = {"good-fit", "best-fit", "first-fit"};

// Good-fit gathers requests below this fraction of the heap in this part of it, as long as there is room.
constexpr std::uint64_t kSmallFraction = 1 << 15;
constexpr std::uint64_t kLowFraction = 16;

std::uint64_t low_end_units(Placement placement, std::uint64_t capacity_units) noexcept {
  return placement == Placement::good_fit ? capacity_units / kLowFraction : 0;
}

}  // namespace

std::string_view to_string(Placement placement) noexcept {
  return kPlacementNames[static_cast<std::size_t>(placement)];
}

Placement parse_placement(std::string_view name) {
  return static_cast<Placement>(index_of_choice("placement", name, kPlacementNames));
}

const std::vector<std::string_view>& placement_names() {
  static const std::vector<std::string_view> names(kPlacementNames.begin(), kPlacementNames.end());
  return names;
}

BlockAllocator::BlockAllocator(std::uint64_t capacity_bytes, Placement placement)
    : capacity_units_(capacity_bytes / kUnitBytes),
      placement_(placement),
      lanes_(capacity_units_),  // every block has at least one unit
      nodes_(lanes_.size()),
      generations_(lanes_.size()),
      bins_(nodes_, low_end_units(placement, capacity_units_), capacity_units_ / kSmallFraction) {
  if (placement_ == Placement::first_fit) {
    tree_.emplace(nodes_);
  }
  if (capacity_units_ == 0) {
    return;
  }
  first_node_ = new_node(0);
  nodes_[first_node_].size_units = capacity_units_;
  insert_free(first_node_);
}

std::uint32_t BlockAllocator::new_node(std::uint32_t lane) noexcept {
  const std::uint32_t node = lanes_.take(nodes_, lane);
  nodes_[node] = BlockNode{};
  return node;
}

void BlockAllocator::recycle_node(std::uint32_t node) noexcept {
  nodes_[node].size_units = 0;
  lanes_.give_back(nodes_, node);
}

std::uint32_t BlockAllocator::find_free(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
  switch (placement_) {
    case Placement::good_fit:
      return bins_.find_good_fit(units, alignment_units);
    case Placement::best_fit:
      return bins_.find_best_fit(units, alignment_units);
    case Placement::first_fit:
      return tree_->find_first_fit(units, alignment_units);
  }
  return kNoNode;
}

void BlockAllocator::insert_free(std::uint32_t node) noexcept {
  ++free_count_;
  if (placement_ == Placement::first_fit) {
    tree_->insert(node);
  } else {
    bins_.insert(node);
  }
}

void BlockAllocator::remove_free(std::uint32_t node) noexcept {
  --free_count_;
  if (placement_ == Placement::first_fit) {
    tree_->remove(node);
  } else {
    bins_.remove(node);
  }
}

void BlockAllocator::resize_free(std::uint32_t node, std::uint64_t old_units) noexcept {
  if (placement_ == Placement::first_fit) {
    tree_->resize(node, old_units);
  } else {
    bins_.resize(node, old_units);
  }
}

void BlockAllocator::link(std::uint32_t first, std::uint32_t second) noexcept {
  if (first != kNoNode) {
    nodes_[first].next = second;
  } else {
    first_node_ = second;
  }
  if (second != kNoNode) {
    nodes_[second].previous = first;
  }
}

std::uint32_t BlockAllocator::cut_head(std::uint32_t node, std::uint64_t units, std::uint32_t lane) noexcept {
  const std::uint32_t head = new_node(lane);
  nodes_[head].offset_units = nodes_[node].offset_units;
  nodes_[head].size_units = units;
  nodes_[node].offset_units += units;
  nodes_[node].size_units -= units;
  link(nodes_[node].previous, head);
  link(head, node);
  return head;
}

std::uint32_t BlockAllocator::cut_tail(std::uint32_t node, std::uint64_t units, std::uint32_t lane) noexcept {
  const std::uint32_t tail = new_node(lane);
  nodes_[node].size_units -= units;
  nodes_[tail].offset_units = nodes_[node].offset_units + nodes_[node].size_units;
  nodes_[tail].size_units = units;
  link(tail, nodes_[node].next);
  link(node, tail);
  return tail;
}

void BlockAllocator::absorb_next(std::uint32_t node) noexcept {
  const std::uint32_t absorbed = nodes_[node].next;
  nodes_[node].size_units += nodes_[absorbed].size_units;
  link(node, nodes_[absorbed].next);
  recycle_node(absorbed);
}

void BlockAllocator::absorb_previous(std::uint32_t node) noexcept {
  const std::uint32_t absorbed = nodes_[node].previous;
  nodes_[node].offset_units = nodes_[absorbed].offset_units;
  nodes_[node].size_units += nodes_[absorbed].size_units;
  link(nodes_[absorbed].previous, node);
  recycle_node(absorbed);
}

Block BlockAllocator::block_at(std::uint32_t node) const noexcept {
  return {nodes_[node].offset_units * kUnitBytes, nodes_[node].size_units * kUnitBytes, node, generation_of(node)};
}

std::uint32_t BlockAllocator::take_from(std::uint32_t node, std::uint64_t units, std::uint64_t gap_units,
                                        std::uint32_t lane) noexcept {
  const std::uint64_t old_units = nodes_[node].size_units;
  if (gap_units != 0) {
    const std::uint32_t rest = cut_tail(node, old_units - gap_units, lane);
    resize_free(node, old_units);
    if (nodes_[rest].size_units != units) {
      insert_free(cut_tail(rest, nodes_[rest].size_units - units, lane));
    }
    return rest;
  }
  if (old_units == units) {
    remove_free(node);
    return node;
  }
  const std::uint32_t head = cut_head(node, units, lane);
  resize_free(node, old_units);
  return head;
}

void BlockAllocator::join_free(std::uint32_t node) noexcept {
  const std::uint32_t previous = nodes_[node].previous;
  const std::uint32_t next = nodes_[node].next;
  const bool joins_next = next != kNoNode && !is_used(next);
  if (previous != kNoNode && !is_used(previous)) {
    const std::uint64_t old_units = nodes_[previous].size_units;
    if (joins_next) {
      remove_free(next);
      absorb_next(node);
    }
    absorb_next(previous);
    resize_free(previous, old_units);
  } else if (joins_next) {
    const std::uint64_t old_units = nodes_[next].size_units;
    absorb_previous(next);
    resize_free(next, old_units);
  } else {
    insert_free(node);
  }
}

Block BlockAllocator::allocate(std::uint64_t bytes, std::uint64_t alignment_bytes, std::uint32_t lane) noexcept {
  const std::uint64_t units = bytes == 0 ? 1 : (bytes - 1) / kUnitBytes + 1;
  const std::uint64_t alignment_units = std::max<std::uint64_t>(alignment_bytes / kUnitBytes, 1);
  if (units > capacity_units_ || !has_room_for_nodes(2)) {
    return {};
  }
  const std::uint32_t free_node = find_free(units, alignment_units);
  if (free_node == kNoNode) {
    return {};
  }
  const BlockNode& free_block = nodes_[free_node];
  const std::uint64_t gap_units = free_block.fit(units, alignment_units) - free_block.offset_units;
  const std::uint32_t node = take_from(free_node, units, gap_units, lane);
  flip(node);
  used_units_ += units;
  ++live_count_;
  return block_at(node);
}

std::uint64_t BlockAllocator::free(std::uint32_t node, std::uint32_t generation) noexcept {
  if (!is_live(node, generation)) {
    return 0;
  }
  const std::uint64_t units = nodes_[node].size_units;
  flip(node);
  used_units_ -= units;
  --live_count_;
  join_free(node);
  return units * kUnitBytes;
}

Block BlockAllocator::find(std::uint32_t node, std::uint64_t offset_bytes) const noexcept {
  if (node >= nodes_.size() || !is_used(node) || nodes_[node].offset_units * kUnitBytes != offset_bytes) {
    return {};
  }
  return block_at(node);
}

std::vector<Block> BlockAllocator::take_free_blocks(std::uint64_t min_bytes) {
  std::vector<Block> taken;
  taken.reserve(free_count_);
  for (std::uint32_t node = first_node_; node != kNoNode; node = nodes_[node].next) {
    if (is_used(node) || nodes_[node].size_units * kUnitBytes < min_bytes) {
      continue;
    }
    remove_free(node);
    flip(node);
    used_units_ += nodes_[node].size_units;
    ++live_count_;
    taken.push_back(block_at(node));
  }
  return taken;
}

std::uint64_t BlockAllocator::largest_free_upper_bound_bytes() const noexcept {
  const std::uint64_t units =
      placement_ == Placement::first_fit ? tree_->largest_units() : bins_.largest_upper_bound_units();
  return std::min(units, capacity_units_ - used_units_) * kUnitBytes;
}

std::uint64_t BlockAllocator::largest_free_bytes() const noexcept {
  return (placement_ == Placement::first_fit ? tree_->largest_units() : bins_.largest_units()) * kUnitBytes;
}

std::string BlockAllocator::find_inconsistency() const {
  std::uint64_t expected_offset = 0;
  std::uint64_t used = 0;
  std::uint64_t live = 0;
  std::uint64_t free_blocks = 0;
  std::uint64_t largest = 0;
  std::uint32_t previous = kNoNode;
  for (std::uint32_t node = first_node_; node != kNoNode; node = nodes_[node].next) {
    const BlockNode& block = nodes_[node];
    const std::string where = " at offset " + std::to_string(block.offset_units * kUnitBytes);
    if (block.offset_units != expected_offset || block.size_units == 0) {
      return "blocks do not tile the heap" + where;
    }
    if (block.previous != previous) {
      return "broken neighbour link" + where;
    }
    if (is_used(node)) {
      used += block.size_units;
      ++live;
    } else {
      if (previous != kNoNode && !is_used(previous)) {
        return "two free neighbours were not joined" + where;
      }
      ++free_blocks;
      largest = std::max(largest, block.size_units);
    }
    expected_offset += block.size_units;
    previous = node;
  }
  if (expected_offset != capacity_units_) {
    return "blocks do not cover the heap";
  }
  if (used != used_units_ || live != live_count_ || free_blocks != free_count_) {
    return "counters do not match the blocks";
  }
  if (largest_free_bytes() != largest * kUnitBytes || largest_free_upper_bound_bytes() < largest * kUnitBytes) {
    return "the free index does not know the largest free block";
  }
  return {};
}

}  // namespace tierpool
