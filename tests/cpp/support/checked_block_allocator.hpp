#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "support/block_model.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"

namespace tierpool::testing {

/// Does everything twice, in a BlockAllocator and in a BlockModel, and remembers the first difference.
class CheckedBlockAllocator {
 public:
  CheckedBlockAllocator(std::uint64_t capacity_bytes, Placement placement)
      : blocks_(capacity_bytes, placement), model_(capacity_bytes) {}

  void allocate(std::uint64_t bytes, std::uint64_t alignment_bytes) {
    const std::uint64_t units = bytes == 0 ? 1 : (bytes - 1) / kUnitBytes + 1;
    const bool possible = units <= model_.capacity_bytes() / kUnitBytes;
    const std::vector<std::uint64_t> allowed =
        possible ? allowed_offsets(model_, blocks_.placement(), units * kUnitBytes, alignment_bytes)
                 : std::vector<std::uint64_t>();
    const Block block = blocks_.allocate(bytes, alignment_bytes);
    if (!block) {
      expect(allowed.empty(), "a fitting block exists, but the request was refused");
      return;
    }
    if (!expect(std::ranges::find(allowed, block.offset_bytes) != allowed.end(), "the block is at a wrong place") ||
        !expect(block.size_bytes == units * kUnitBytes, "the block has a wrong size")) {
      return;
    }
    model_.add(block.offset_bytes, block.size_bytes);
    live_.push_back(block);
    expect(blocks_.is_live(block.node, block.generation), "a new block is not live");
    expect(blocks_.find(block.node, block.offset_bytes).generation == block.generation, "a live block is not found");
    expect(!blocks_.find(block.node, block.offset_bytes + kUnitBytes), "a block is found where it does not begin");
  }

  /// Frees a live block, `index` modulo their number.
  void free(std::uint64_t index) {
    if (live_.empty()) {
      return;
    }
    const std::uint64_t position = index % live_.size();
    const Block block = live_[position];
    live_[position] = live_.back();
    live_.pop_back();
    expect(blocks_.free(block.node, block.generation) == block.size_bytes, "a live block was not given back in full");
    model_.remove(block.offset_bytes);
    stale_.push_back(block);
  }

  /// Frees a block that is gone, `index` modulo their number.
  void free_stale(std::uint64_t index) {
    if (!stale_.empty()) {
      const Block block = stale_[index % stale_.size()];
      expect(blocks_.free(block.node, block.generation) == 0, "a stale block was given back");
      expect(!blocks_.is_live(block.node, block.generation), "a stale block is live");
    }
  }

  void take_free_blocks(std::uint64_t min_bytes) {
    std::vector<BlockModel::Gap> expected = model_.gaps();
    std::erase_if(expected, [min_bytes](const BlockModel::Gap& gap) { return gap.size_bytes < min_bytes; });
    const std::vector<Block> taken = blocks_.take_free_blocks(min_bytes);
    expect(std::ranges::equal(taken, expected,
                              [](const Block& block, const BlockModel::Gap& gap) {
                                return block.offset_bytes == gap.offset_bytes && block.size_bytes == gap.size_bytes;
                              }),
           "the free blocks taken are not the gaps");
    for (const Block& block : taken) {
      model_.add(block.offset_bytes, block.size_bytes);
      live_.push_back(block);
    }
  }

  void free_all() {
    while (!live_.empty()) {
      free(0);
    }
    expect(blocks_.free_block_count() == (model_.capacity_bytes() == 0 ? 0 : 1), "free blocks were not joined");
  }

  /// Compares everything that can be asked.
  void check() {
    const std::string inconsistency = blocks_.find_inconsistency();
    expect(inconsistency.empty(), inconsistency);
    expect(blocks_.used_bytes() == model_.used_bytes(), "used bytes differ");
    expect(blocks_.free_bytes() == model_.capacity_bytes() - model_.used_bytes(), "free bytes differ");
    expect(blocks_.live_count() == model_.live_count(), "the number of live blocks differs");
    expect(blocks_.free_block_count() == model_.gaps().size(), "the number of free blocks differs");
    expect(blocks_.largest_free_bytes() == model_.largest_gap_bytes(), "the largest free block differs");
    expect(blocks_.largest_free_upper_bound_bytes() >= model_.largest_gap_bytes(), "the upper bound is none");
  }

  /// The first difference; empty when there was none.
  [[nodiscard]] const std::string& complaint() const { return complaint_; }
  [[nodiscard]] std::uint64_t live_count() const { return live_.size(); }

 private:
  bool expect(bool holds, const std::string& otherwise) {
    if (!holds && complaint_.empty()) {
      complaint_ = otherwise;
    }
    return holds;
  }

  BlockAllocator blocks_;
  BlockModel model_;
  std::vector<Block> live_;
  std::vector<Block> stale_;
  std::string complaint_;
};

}  // namespace tierpool::testing
