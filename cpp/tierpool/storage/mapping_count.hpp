#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tierpool/storage/unit_table.hpp"

namespace tierpool {

/// Mappings that stay free beside a window, for what else a process maps: libraries, thread stacks, allocations.
inline constexpr std::uint64_t kSpareMappings = 1024;

/// How many mappings files take while copies and units are laid over them. Immutable.
///
/// Each copy is one, and so is each gap between copies. A unit's extent that fills its gap takes that mapping's place;
/// on every side where something of the gap is left it splits one. Nothing splits finer than all extents do.
class MappingCount {
 public:
  /// `files` are what is mapped of each file, by file index. Copies and units are disjoint; throws ConfigError naming
  /// an extent that is not whole pages in its file.
  MappingCount(const UnitTable& units, std::span<const Extent> copies, std::span<const Extent> files);

  /// The most that there can be while at most `slots` units are shown.
  [[nodiscard]] std::uint64_t most(std::uint64_t slots) const noexcept;

 private:
  std::uint64_t without_units_ = 0;    // copies and the gaps between them
  std::uint64_t with_all_pieces_ = 0;  // copies, units' extents, and what nothing ever covers
  std::vector<std::uint64_t> splits_;  // by number of units shown
};

}  // namespace tierpool
