#include "tierpool/storage/unit_layout.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <tuple>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kResident = std::numeric_limits<std::uint64_t>::max();

/// From this page on, an owner (a unit or kResident) has a stretch more or one less.
struct Change {
  std::uint32_t file_index = 0;
  std::uint64_t offset_bytes = 0;
  std::uint64_t owner = 0;
  int count = 0;
};

void add_changes(std::span<const Extent> extents, std::uint64_t owner, std::uint64_t page_bytes,
                 std::vector<Change>& changes) {
  constexpr auto kLast = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (const Extent& extent : extents) {
    if (extent.size_bytes > kLast || extent.offset_bytes > kLast - extent.size_bytes) {
      throw ConfigError("An extent of " + std::to_string(extent.size_bytes) + " bytes at " +
                        std::to_string(extent.offset_bytes) + " ends beyond 2^63 bytes");
    }
    if (extent.size_bytes > 0) {
      changes.push_back({extent.file_index, align_down(extent.offset_bytes, page_bytes), owner, 1});
      changes.push_back({extent.file_index, align_up(extent.end_bytes(), page_bytes), owner, -1});
    }
  }
}

/// The owners of a page, by how many of their stretches touch it.
using Owners = std::map<std::uint64_t, int>;

void apply_change(const Change& change, Owners& owners) {
  const auto found = owners.try_emplace(change.owner, 0).first;
  found->second += change.count;
  if (found->second == 0) {
    owners.erase(found);
  }
}

void append(const Extent& extent, std::vector<Extent>& extents) {
  if (!extents.empty() && extents.back().file_index == extent.file_index &&
      extents.back().end_bytes() == extent.offset_bytes) {
    extents.back().size_bytes += extent.size_bytes;
  } else {
    extents.push_back(extent);
  }
}

std::vector<Extent>& destination(const Owners& owners, UnitLayout& layout) {
  if (owners.size() > 1) {
    return layout.edges;
  }
  return owners.begin()->first == kResident ? layout.resident : layout.units[owners.begin()->first];
}

}  // namespace

std::vector<Extent> UnitLayout::copies() const {
  std::vector<Extent> all = resident;
  all.insert(all.end(), edges.begin(), edges.end());
  return all;
}

UnitLayout lay_out_units(std::span<const std::vector<Extent>> units, std::span<const Extent> resident,
                         std::uint64_t page_bytes) {
  std::vector<Change> changes;
  for (std::size_t unit = 0; unit < units.size(); ++unit) {
    add_changes(units[unit], unit, page_bytes, changes);
  }
  add_changes(resident, kResident, page_bytes, changes);
  std::sort(changes.begin(), changes.end(), [](const Change& left, const Change& right) {
    return std::tie(left.file_index, left.offset_bytes) < std::tie(right.file_index, right.offset_bytes);
  });
  UnitLayout layout;
  layout.units.resize(units.size());
  Owners owners;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    apply_change(changes[i], owners);
    // Owners are left only while another change of the same file is to come.
    if (!owners.empty() && changes[i + 1].offset_bytes > changes[i].offset_bytes) {
      const std::uint64_t offset = changes[i].offset_bytes;
      append({changes[i].file_index, offset, changes[i + 1].offset_bytes - offset}, destination(owners, layout));
    }
  }
  return layout;
}

}  // namespace tierpool
