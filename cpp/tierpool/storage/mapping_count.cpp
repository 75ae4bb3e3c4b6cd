#include "tierpool/storage/mapping_count.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr UnitId kCopy = std::numeric_limits<UnitId>::max();

struct Piece {
  Extent extent;
  UnitId unit = kCopy;
};

void require_inside(const Extent& extent, std::span<const Extent> files, std::uint64_t page_bytes) {
  const bool known = extent.file_index < files.size();
  const Extent file = known ? files[extent.file_index] : Extent{};
  if (!known || extent.offset_bytes < file.offset_bytes || extent.size_bytes > file.size_bytes ||
      extent.offset_bytes - file.offset_bytes > file.size_bytes - extent.size_bytes ||
      (extent.offset_bytes | extent.size_bytes) % page_bytes != 0) {
    throw ConfigError("The " + std::to_string(extent.size_bytes) + " bytes at " + std::to_string(extent.offset_bytes) +
                      " of file " + std::to_string(extent.file_index) + " are not whole pages that are mapped");
  }
}

/// All copies and extents of units as they lie in the files, and behind the last of each file an empty piece.
std::vector<Piece> sorted_pieces(const UnitTable& units, std::span<const Extent> copies,
                                 std::span<const Extent> files) {
  std::vector<Piece> pieces;
  for (const Extent& copy : copies) {
    pieces.push_back({copy, kCopy});
  }
  for (UnitId unit = 0; unit < units.unit_count(); ++unit) {
    for (const Extent& extent : units.extents(unit)) {
      pieces.push_back({extent, unit});
    }
  }
  for (const Piece& piece : pieces) {
    require_inside(piece.extent, files, units.page_bytes());
  }
  for (std::uint32_t i = 0; i < files.size(); ++i) {
    pieces.push_back({{i, files[i].end_bytes(), 0}, kCopy});
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& left, const Piece& right) {
    return std::tie(left.extent.file_index, left.extent.offset_bytes) <
           std::tie(right.extent.file_index, right.extent.offset_bytes);
  });
  return pieces;
}

}  // namespace

MappingCount::MappingCount(const UnitTable& units, std::span<const Extent> copies, std::span<const Extent> files) {
  const std::vector<Piece> pieces = sorted_pieces(units, copies, files);
  std::vector<std::uint64_t> open_sides(units.unit_count(), 0);
  std::uint64_t gaps = 0;
  std::uint64_t holes = 0;  // in which nothing ever lies
  Piece before;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const std::uint32_t file_index = piece.extent.file_index;
    if (i == 0 || file_index != before.extent.file_index) {
      before = {{file_index, files[file_index].offset_bytes, 0}, kCopy};  // a file's begin ends a gap as a copy does
    }
    const bool has_hole = before.extent.end_bytes() < piece.extent.offset_bytes;
    holes += has_hole ? 1 : 0;
    gaps += before.unit == kCopy && (has_hole || piece.unit != kCopy) ? 1 : 0;
    if (before.unit != kCopy && (has_hole || piece.unit != kCopy)) {
      ++open_sides[before.unit];
    }
    if (piece.unit != kCopy && (has_hole || before.unit != kCopy)) {
      ++open_sides[piece.unit];
    }
    before = piece;
  }
  without_units_ = copies.size() + gaps;
  with_all_pieces_ = pieces.size() - files.size() + holes;
  std::sort(open_sides.begin(), open_sides.end(), std::greater<>());
  splits_.push_back(0);
  std::partial_sum(open_sides.begin(), open_sides.end(), std::back_inserter(splits_));
}

std::uint64_t MappingCount::most(std::uint64_t slots) const noexcept {
  const std::uint64_t shown = std::min<std::uint64_t>(slots, splits_.size() - 1);
  return std::min(without_units_ + splits_[shown], with_all_pieces_);
}

}  // namespace tierpool
