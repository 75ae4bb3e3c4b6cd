#pragma once

#include <cstdint>
#include <limits>

#include "tierpool/base/sparse_array.hpp"

namespace tierpool {

/// Bytes per allocation unit: offsets and sizes inside a heap are whole units.
inline constexpr std::uint64_t kUnitBytes = 256;

inline constexpr std::uint32_t kNoNode = std::numeric_limits<std::uint32_t>::max();

/// One block of a heap, kept beside the memory and never in it. Neighbours by address are linked; the two free links
/// belong to the free index the block is in (list neighbours in FreeBins, children in FreeTree).
struct BlockNode {
  std::uint64_t offset_units = 0;
  std::uint64_t size_units = 0;
  std::uint32_t previous = kNoNode;
  std::uint32_t next = kNoNode;
  std::uint32_t free_left = kNoNode;
  std::uint32_t free_right = kNoNode;

  /// Where a block of `units` aligned to `alignment_units` would begin, or UINT64_MAX when it does not fit.
  [[nodiscard]] std::uint64_t fit(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
    const std::uint64_t start = (offset_units + alignment_units - 1) & ~(alignment_units - 1);
    const std::uint64_t gap = start - offset_units;
    return gap <= size_units && units <= size_units - gap ? start : std::numeric_limits<std::uint64_t>::max();
  }
  [[nodiscard]] bool fits(std::uint64_t units, std::uint64_t alignment_units) const noexcept {
    return fit(units, alignment_units) != std::numeric_limits<std::uint64_t>::max();
  }
};

/// By node index. Entries never move, so that a live block's size may be read without the heap's lock.
using BlockNodes = SparseArray<BlockNode>;

}  // namespace tierpool
