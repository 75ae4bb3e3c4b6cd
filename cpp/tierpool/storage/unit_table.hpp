#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tierpool/storage/extent.hpp"

namespace tierpool {

/// Names a unit: what is fetched together. Ids run from 0 up without gaps.
using UnitId = std::uint32_t;

/// Which pages of which files every unit consists of. In a slot they lie one behind the other, in this order.
/// Immutable: may be read from any thread.
class UnitTable {
 public:
  /// Unit i consists of `units[i]`: whole pages, of no other unit; none at all is allowed. Throws ConfigError naming
  /// the unit and the extent.
  UnitTable(const std::vector<std::vector<Extent>>& units, std::uint64_t page_bytes);

  [[nodiscard]] std::uint32_t unit_count() const noexcept { return static_cast<std::uint32_t>(bytes_.size()); }
  [[nodiscard]] std::uint64_t page_bytes() const noexcept { return page_bytes_; }
  [[nodiscard]] std::span<const Extent> extents(UnitId unit) const noexcept {
    return std::span(extents_).subspan(first_extent_[unit], first_extent_[unit + 1] - first_extent_[unit]);
  }
  [[nodiscard]] std::uint64_t unit_bytes(UnitId unit) const noexcept { return bytes_[unit]; }
  /// What a slot must hold to hold any unit.
  [[nodiscard]] std::uint64_t largest_unit_bytes() const noexcept { return largest_unit_bytes_; }
  [[nodiscard]] std::uint64_t most_extents() const noexcept { return most_extents_; }

 private:
  void refuse_overlaps() const;

  std::uint64_t page_bytes_;
  std::uint64_t largest_unit_bytes_ = 0;
  std::uint64_t most_extents_ = 0;
  std::vector<Extent> extents_;            // of all units, by unit
  std::vector<std::size_t> first_extent_;  // by unit, and one more
  std::vector<std::uint64_t> bytes_;       // by unit
};

}  // namespace tierpool
