#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"

namespace tierpool::testing {

/// A heap's live blocks in a std::map and everything else by brute force: what a BlockAllocator is compared with.
class BlockModel {
 public:
  struct Gap {
    std::uint64_t offset_bytes = 0;
    std::uint64_t size_bytes = 0;
  };

  explicit BlockModel(std::uint64_t capacity_bytes) : capacity_bytes_(align_down(capacity_bytes, kUnitBytes)) {}

  void add(std::uint64_t offset_bytes, std::uint64_t size_bytes) {
    live_.emplace(offset_bytes, size_bytes);
    used_bytes_ += size_bytes;
  }
  void remove(std::uint64_t offset_bytes) {
    used_bytes_ -= live_.at(offset_bytes);
    live_.erase(offset_bytes);
  }

  /// Every free range, by offset.
  [[nodiscard]] std::vector<Gap> gaps() const {
    std::vector<Gap> gaps;
    std::uint64_t end = 0;
    for (const auto& [offset, size] : live_) {
      if (offset != end) {
        gaps.push_back({end, offset - end});
      }
      end = offset + size;
    }
    if (end != capacity_bytes_) {
      gaps.push_back({end, capacity_bytes_ - end});
    }
    return gaps;
  }

  /// Where each gap that can hold the block would place it, by offset of the gap.
  [[nodiscard]] std::map<std::uint64_t, Gap> fits(std::uint64_t size_bytes, std::uint64_t alignment_bytes) const {
    std::map<std::uint64_t, Gap> fits;
    for (const Gap& gap : gaps()) {
      const std::uint64_t start = align_up(gap.offset_bytes, std::max(alignment_bytes, kUnitBytes));
      const std::uint64_t end = gap.offset_bytes + gap.size_bytes;
      if (start <= end && size_bytes <= end - start) {
        fits.emplace(start, gap);
      }
    }
    return fits;
  }

  [[nodiscard]] std::uint64_t largest_gap_bytes() const {
    std::uint64_t largest = 0;
    for (const Gap& gap : gaps()) {
      largest = std::max(largest, gap.size_bytes);
    }
    return largest;
  }
  [[nodiscard]] bool is_live(std::uint64_t offset_bytes) const { return live_.contains(offset_bytes); }
  [[nodiscard]] std::uint64_t live_count() const { return live_.size(); }
  [[nodiscard]] std::uint64_t used_bytes() const { return used_bytes_; }
  [[nodiscard]] std::uint64_t capacity_bytes() const { return capacity_bytes_; }

 private:
  std::uint64_t capacity_bytes_;
  std::uint64_t used_bytes_ = 0;
  std::map<std::uint64_t, std::uint64_t> live_;  // offset -> size
};

/// Where `placement` has to put a block: the offsets allowed, empty when it has to refuse.
[[nodiscard]] inline std::vector<std::uint64_t> allowed_offsets(const BlockModel& model, Placement placement,
                                                                std::uint64_t size_bytes,
                                                                std::uint64_t alignment_bytes) {
  const std::map<std::uint64_t, BlockModel::Gap> fits = model.fits(size_bytes, alignment_bytes);
  if (fits.empty()) {
    return {};
  }
  if (placement == Placement::first_fit) {
    return {fits.begin()->first};
  }
  if (placement == Placement::best_fit) {
    const auto smallest = std::min_element(fits.begin(), fits.end(), [](const auto& left, const auto& right) {
      return left.second.size_bytes < right.second.size_bytes;
    });
    return {smallest->first};
  }
  std::vector<std::uint64_t> all;
  std::transform(fits.begin(), fits.end(), std::back_inserter(all), [](const auto& fit) { return fit.first; });
  return all;
}

}  // namespace tierpool::testing
