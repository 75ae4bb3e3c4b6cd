#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

/// Free blocks by size: 32 bins per power of two, each a list, found through a two-level bitmap.
///
/// Two-level segregated fit (Masmano et al., "TLSF: a new dynamic memory allocator for real-time systems", 2004), with
/// a scan of the request's own bin before the next one is taken. Blocks at the low end of the heap may be listed apart,
/// for small requests to be served there first: scattered over the heap, they would cut up what large ones need. Not
/// thread-safe.
class FreeBins {
 public:
  /// Blocks that begin below `low_end_units` are at the low end; requests below `small_units` are small.
  FreeBins(BlockNodes& nodes, std::uint64_t low_end_units, std::uint64_t small_units) noexcept
      : nodes_(nodes), low_end_units_(low_end_units), small_units_(small_units) {
    low_heads_.fill(kNoNode);
    high_heads_.fill(kNoNode);
  }

  void insert(std::uint32_t node) noexcept;
  void remove(std::uint32_t node) noexcept { unlink(node, bin_of(nodes_[node].size_units)); }
  /// To be called after a node of the index has taken another size or offset.
  void resize(std::uint32_t node, std::uint64_t old_units) noexcept;

  /// A block that fits: from the request's own bin if one of its first blocks does, else from the next bin, else
  /// from the rest of the bins whose blocks may or may not fit. kNoNode only when no free block fits.
  [[nodiscard]] std::uint32_t find_good_fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept;
  /// The smallest block that fits, the lowest of several. Scans one bin, more only for large alignments.
  [[nodiscard]] std::uint32_t find_best_fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept;

  /// No free block is larger; off by at most one bin's width.
  [[nodiscard]] std::uint64_t largest_upper_bound_units() const noexcept;
  /// Scans the top bin.
  [[nodiscard]] std::uint64_t largest_units() const noexcept;

 private:
  static constexpr std::uint32_t kSubBinBits = 5;
  static constexpr std::uint32_t kSubBins = 1U << kSubBinBits;
  static constexpr std::uint32_t kLevels = 64 - kSubBinBits + 1;
  static constexpr std::uint32_t kNoBin = kLevels * kSubBins;
  // Enough for equal-size blocks (KV pages) to find each other, too few to be felt.
  static constexpr int kScanLimit = 8;

  /// Which bins have blocks.
  struct Bitmap {
    void set(std::uint32_t bin) noexcept;
    void clear(std::uint32_t bin) noexcept;
    /// The first set bin from `bin` up, kNoBin when there is none.
    [[nodiscard]] std::uint32_t next(std::uint32_t bin) const noexcept;
    [[nodiscard]] std::uint32_t top() const noexcept;

    std::uint64_t level_bits = 0;
    std::array<std::uint32_t, kLevels> sub_bin_bits{};
  };
  using Heads = std::array<std::uint32_t, kLevels * kSubBins>;

  [[nodiscard]] static std::uint32_t bin_of(std::uint64_t units) noexcept {
    if (units < kSubBins) {
      return static_cast<std::uint32_t>(units);
    }
    const auto exponent = static_cast<std::uint32_t>(std::bit_width(units)) - 1;
    const auto sub_bin = static_cast<std::uint32_t>(units >> (exponent - kSubBinBits)) & (kSubBins - 1);
    return (exponent - kSubBinBits + 1) * kSubBins + sub_bin;
  }
  [[nodiscard]] static std::uint64_t lower_bound_units(std::uint32_t bin) noexcept;

  void unlink(std::uint32_t node, std::uint32_t bin) noexcept;
  [[nodiscard]] std::uint32_t first_in(std::uint32_t bin) const noexcept {
    return low_heads_[bin] != kNoNode ? low_heads_[bin] : high_heads_[bin];
  }
  /// The first of `limit` blocks from `head` on that fits.
  [[nodiscard]] std::uint32_t scan(std::uint32_t head, std::uint64_t units, std::uint64_t alignment_units,
                                   int limit) const noexcept;
  [[nodiscard]] std::uint32_t find_low(std::uint64_t units, std::uint64_t alignment_units) const noexcept;
  /// In the bins where only some blocks fit: every block is looked at.
  [[nodiscard]] std::uint32_t find_doubtful(std::uint64_t units, std::uint64_t alignment_units) const noexcept;
  [[nodiscard]] std::uint32_t smallest_in(std::uint32_t bin, std::uint64_t units,
                                          std::uint64_t alignment_units) const noexcept;

  BlockNodes& nodes_;
  std::uint64_t low_end_units_;
  std::uint64_t small_units_;
  Bitmap low_bins_;
  Bitmap all_bins_;
  Heads low_heads_;
  Heads high_heads_;
};

}  // namespace tierpool
