#include "tierpool/pool/free_bins.hpp"

#include <algorithm>
#include <limits>

namespace tierpool {
namespace {

// What the first block of a list has in place of a left neighbour: it says whose list it is, since the block's offset
// may have changed by the time it is taken out.
constexpr std::uint32_t kHeadOfHigh = kNoNode;
constexpr std::uint32_t kHeadOfLow = kNoNode - 1;

}  // namespace

std::uint64_t FreeBins::lower_bound_units(std::uint32_t bin) noexcept {
  const std::uint32_t level = bin >> kSubBinBits;
  const std::uint64_t sub_bin = bin & (kSubBins - 1);
  return level == 0 ? sub_bin : (kSubBins + sub_bin) << (level - 1);
}

void FreeBins::Bitmap::set(std::uint32_t bin) noexcept {
  const std::uint32_t level = bin >> kSubBinBits;
  sub_bin_bits[level] |= 1U << (bin & (kSubBins - 1));
  level_bits |= std::uint64_t{1} << level;
}

void FreeBins::Bitmap::clear(std::uint32_t bin) noexcept {
  const std::uint32_t level = bin >> kSubBinBits;
  sub_bin_bits[level] &= ~(1U << (bin & (kSubBins - 1)));
  if (sub_bin_bits[level] == 0) {
    level_bits &= ~(std::uint64_t{1} << level);
  }
}

std::uint32_t FreeBins::Bitmap::next(std::uint32_t bin) const noexcept {
  if (bin >= kNoBin) {
    return kNoBin;
  }
  std::uint32_t level = bin >> kSubBinBits;
  const std::uint32_t same_level = sub_bin_bits[level] & (~0U << (bin & (kSubBins - 1)));
  if (same_level != 0) {
    return level * kSubBins + static_cast<std::uint32_t>(std::countr_zero(same_level));
  }
  // Two shifts: one by level + 1 would be undefined for the last level.
  const std::uint64_t higher = (level_bits >> level >> 1) << level << 1;
  if (higher == 0) {
    return kNoBin;
  }
  level = static_cast<std::uint32_t>(std::countr_zero(higher));
  return level * kSubBins + static_cast<std::uint32_t>(std::countr_zero(sub_bin_bits[level]));
}

std::uint32_t FreeBins::Bitmap::top() const noexcept {
  if (level_bits == 0) {
    return kNoBin;
  }
  const auto level = static_cast<std::uint32_t>(std::bit_width(level_bits)) - 1;
  return level * kSubBins + static_cast<std::uint32_t>(std::bit_width(sub_bin_bits[level])) - 1;
}

void FreeBins::insert(std::uint32_t node) noexcept {
  const std::uint32_t bin = bin_of(nodes_[node].size_units);
  const bool is_low = nodes_[node].offset_units < low_end_units_;
  Heads& heads = is_low ? low_heads_ : high_heads_;
  const std::uint32_t head = heads[bin];
  nodes_[node].free_left = is_low ? kHeadOfLow : kHeadOfHigh;
  nodes_[node].free_right = head;
  heads[bin] = node;
  if (head != kNoNode) {
    nodes_[head].free_left = node;
    return;
  }
  all_bins_.set(bin);
  if (is_low) {
    low_bins_.set(bin);
  }
}

void FreeBins::unlink(std::uint32_t node, std::uint32_t bin) noexcept {
  const BlockNode& removed = nodes_[node];
  if (removed.free_right != kNoNode) {
    nodes_[removed.free_right].free_left = removed.free_left;
  }
  if (removed.free_left < kHeadOfLow) {
    nodes_[removed.free_left].free_right = removed.free_right;
    return;
  }
  const bool is_low = removed.free_left == kHeadOfLow;
  (is_low ? low_heads_ : high_heads_)[bin] = removed.free_right;
  if (removed.free_right != kNoNode) {
    return;
  }
  if (is_low) {
    low_bins_.clear(bin);
  }
  if (first_in(bin) == kNoNode) {
    all_bins_.clear(bin);
  }
}

void FreeBins::resize(std::uint32_t node, std::uint64_t old_units) noexcept {
  // A block that stays in its bin also stays in its list, even if it has just left that end: a preference, no rule.
  const std::uint32_t old_bin = bin_of(old_units);
  if (old_bin != bin_of(nodes_[node].size_units)) {
    unlink(node, old_bin);
    insert(node);
  }
}

std::uint32_t FreeBins::scan(std::uint32_t head, std::uint64_t units, std::uint64_t alignment_units,
                             int limit) const noexcept {
  for (std::uint32_t node = head; node != kNoNode && limit > 0; node = nodes_[node].free_right, --limit) {
    if (nodes_[node].fits(units, alignment_units)) {
      return node;
    }
  }
  return kNoNode;
}

std::uint32_t FreeBins::find_low(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
  const std::uint32_t last_doubtful_bin = bin_of(units + alignment_units - 1);
  for (std::uint32_t bin = low_bins_.next(bin_of(units)); bin != kNoBin; bin = low_bins_.next(bin + 1)) {
    if (bin > last_doubtful_bin) {
      return low_heads_[bin];
    }
    const std::uint32_t node = scan(low_heads_[bin], units, alignment_units, kScanLimit);
    if (node != kNoNode) {
      return node;
    }
  }
  return kNoNode;
}

std::uint32_t FreeBins::find_doubtful(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
  const std::uint32_t last_doubtful_bin = bin_of(units + alignment_units - 1);
  for (std::uint32_t bin = all_bins_.next(bin_of(units)); bin <= last_doubtful_bin; bin = all_bins_.next(bin + 1)) {
    for (const std::uint32_t head : {low_heads_[bin], high_heads_[bin]}) {
      const std::uint32_t node = scan(head, units, alignment_units, std::numeric_limits<int>::max());
      if (node != kNoNode) {
        return node;
      }
    }
  }
  return kNoNode;
}

std::uint32_t FreeBins::find_good_fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
  if (units < small_units_) {
    const std::uint32_t node = find_low(units, alignment_units);
    if (node != kNoNode) {
      return node;
    }
  }
  // Every block above this bin fits, whatever its offset.
  const std::uint32_t last_doubtful_bin = bin_of(units + alignment_units - 1);
  for (std::uint32_t bin = all_bins_.next(bin_of(units)); bin != kNoBin; bin = all_bins_.next(bin + 1)) {
    if (bin > last_doubtful_bin) {
      return first_in(bin);
    }
    for (const std::uint32_t head : {low_heads_[bin], high_heads_[bin]}) {
      const std::uint32_t node = scan(head, units, alignment_units, kScanLimit);
      if (node != kNoNode) {
        return node;
      }
    }
  }
  return find_doubtful(units, alignment_units);
}

std::uint32_t FreeBins::smallest_in(std::uint32_t bin, std::uint64_t units,
                                    std::uint64_t alignment_units) const noexcept {
  std::uint32_t best = kNoNode;
  for (const std::uint32_t head : {low_heads_[bin], high_heads_[bin]}) {
    for (std::uint32_t node = head; node != kNoNode; node = nodes_[node].free_right) {
      const BlockNode& candidate = nodes_[node];
      if (!candidate.fits(units, alignment_units)) {
        continue;
      }
      if (best == kNoNode || candidate.size_units < nodes_[best].size_units ||
          (candidate.size_units == nodes_[best].size_units && candidate.offset_units < nodes_[best].offset_units)) {
        best = node;
      }
    }
  }
  return best;
}

std::uint32_t FreeBins::find_best_fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
  for (std::uint32_t bin = all_bins_.next(bin_of(units)); bin != kNoBin; bin = all_bins_.next(bin + 1)) {
    const std::uint32_t node = smallest_in(bin, units, alignment_units);
    if (node != kNoNode) {
      return node;
    }
  }
  return kNoNode;
}

std::uint64_t FreeBins::largest_upper_bound_units() const noexcept {
  const std::uint32_t bin = all_bins_.top();
  return bin == kNoBin ? 0 : lower_bound_units(bin + 1) - 1;
}

std::uint64_t FreeBins::largest_units() const noexcept {
  const std::uint32_t bin = all_bins_.top();
  std::uint64_t largest = 0;
  if (bin == kNoBin) {
    return largest;
  }
  for (const std::uint32_t head : {low_heads_[bin], high_heads_[bin]}) {
    for (std::uint32_t node = head; node != kNoNode; node = nodes_[node].free_right) {
      largest = std::max(largest, nodes_[node].size_units);
    }
  }
  return largest;
}

}  // namespace tierpool
