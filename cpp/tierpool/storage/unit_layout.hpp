#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tierpool/storage/extent.hpp"

namespace tierpool {

/// Which pages come and go with a unit, and which have to stay. Everything is whole pages, sorted, and disjoint.
struct UnitLayout {
  std::vector<std::vector<Extent>> units;  ///< by unit: the pages that only it needs
  std::vector<Extent> edges;               ///< pages that a unit shares with another one or with resident bytes
  std::vector<Extent> resident;            ///< pages that hold resident bytes and nothing of a unit

  /// Edges and resident pages: what is copied, and stays.
  [[nodiscard]] std::vector<Extent> copies() const;
};

/// Divides the pages of the files between units and what stays. `units[i]` and `resident` are stretches of bytes, of
/// any size and place, as tensors lie in a file; a page that holds a byte of only one unit is that unit's.
/// Throws ConfigError naming an extent that ends beyond 2^63 bytes. Thread-safe.
[[nodiscard]] UnitLayout lay_out_units(std::span<const std::vector<Extent>> units, std::span<const Extent> resident,
                                       std::uint64_t page_bytes);

}  // namespace tierpool
