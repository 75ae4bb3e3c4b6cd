#include "tierpool/storage/unit_table.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

std::string describe(const Extent& extent) {
  return std::to_string(extent.size_bytes) + " bytes at " + std::to_string(extent.offset_bytes) + " of file " +
         std::to_string(extent.file_index);
}

void require_whole_pages(std::size_t unit, const Extent& extent, std::uint64_t page_bytes) {
  const bool fits = extent.size_bytes <= std::numeric_limits<std::int64_t>::max() - page_bytes &&
                    extent.offset_bytes <= std::numeric_limits<std::int64_t>::max() - page_bytes - extent.size_bytes;
  if (!fits || extent.size_bytes == 0 || extent.offset_bytes % page_bytes != 0 || extent.size_bytes % page_bytes != 0) {
    throw ConfigError("Unit " + std::to_string(unit) + " has an extent of " + describe(extent) +
                      ": extents are whole pages of " + std::to_string(page_bytes) + " bytes");
  }
}

}  // namespace

UnitTable::UnitTable(const std::vector<std::vector<Extent>>& units, std::uint64_t page_bytes)
    : page_bytes_(page_bytes) {
  if (!is_power_of_two(page_bytes)) {
    throw ConfigError("page_bytes must be a power of two, not " + std::to_string(page_bytes));
  }
  if (units.size() >= std::numeric_limits<UnitId>::max()) {
    throw ConfigError(std::to_string(units.size()) + " units: there can be at most 2^32 - 2");
  }
  first_extent_.push_back(0);
  for (const std::vector<Extent>& unit : units) {
    std::uint64_t bytes = 0;
    for (const Extent& extent : unit) {
      require_whole_pages(bytes_.size(), extent, page_bytes);
      extents_.push_back(extent);
      bytes += extent.size_bytes;
    }
    first_extent_.push_back(extents_.size());
    bytes_.push_back(bytes);
    largest_unit_bytes_ = std::max(largest_unit_bytes_, bytes);
    most_extents_ = std::max<std::uint64_t>(most_extents_, unit.size());
  }
  refuse_overlaps();
}

void UnitTable::refuse_overlaps() const {
  std::vector<Extent> sorted = extents_;
  std::sort(sorted.begin(), sorted.end(), [](const Extent& left, const Extent& right) {
    return std::tie(left.file_index, left.offset_bytes) < std::tie(right.file_index, right.offset_bytes);
  });
  const auto overlap = std::adjacent_find(sorted.begin(), sorted.end(), [](const Extent& left, const Extent& right) {
    return left.file_index == right.file_index && left.end_bytes() > right.offset_bytes;
  });
  if (overlap != sorted.end()) {
    throw ConfigError("Units overlap: " + describe(*overlap) + " and " + describe(*(overlap + 1)));
  }
}

}  // namespace tierpool
