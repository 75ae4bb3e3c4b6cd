#include "tierpool/storage/unit_layout.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "tierpool/base/errors.hpp"
#include "tierpool/storage/unit_table.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr int kResident = -1;

using Page = std::pair<std::uint32_t, std::uint64_t>;  // file, number
using Owners = std::map<Page, std::set<int>>;

void touch(const std::vector<Extent>& extents, int owner, Owners& owners) {
  for (const Extent& extent : extents) {
    for (std::uint64_t page = extent.offset_bytes / kPage; page * kPage < extent.end_bytes(); ++page) {
      if (extent.size_bytes > 0) {
        owners[{extent.file_index, page}].insert(owner);
      }
    }
  }
}

std::vector<Page> pages_of(const std::vector<Extent>& extents) {
  std::vector<Page> pages;
  for (const Extent& extent : extents) {
    EXPECT_EQ(extent.offset_bytes % kPage, 0u);
    EXPECT_EQ(extent.size_bytes % kPage, 0u);
    for (std::uint64_t offset = extent.offset_bytes; offset < extent.end_bytes(); offset += kPage) {
      pages.emplace_back(extent.file_index, offset / kPage);
    }
  }
  return pages;
}

/// Stretches of random sizes one behind the other, as tensors lie in a file, with gaps now and then.
std::vector<Extent> random_stretches(std::mt19937_64& random, std::uint64_t largest_bytes) {
  std::vector<Extent> stretches;
  for (std::uint32_t file = 0; file < 2; ++file) {
    std::uint64_t offset = random() % 3000;
    for (int i = 0; i < 30; ++i) {
      const std::uint64_t bytes = random() % largest_bytes;
      stretches.push_back({file, offset, bytes});
      offset += bytes + (random() % 3 == 0 ? random() % (2 * kPage) : 0);
    }
  }
  return stretches;
}

TEST(UnitLayout, EveryPageGoesToItsOnlyOwnerAndSharedOnesStay) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::vector<Extent>> units(5);
    std::vector<Extent> resident;
    for (const Extent& stretch : random_stretches(random, round % 2 == 0 ? 5 * kPage : kPage / 3)) {
      const std::uint64_t owner = random() % 7;
      (owner < units.size() ? units[owner] : resident).push_back(stretch);
    }
    Owners owners;
    for (std::size_t unit = 0; unit < units.size(); ++unit) {
      touch(units[unit], static_cast<int>(unit), owners);
    }
    touch(resident, kResident, owners);

    std::vector<std::vector<Page>> expected(units.size());
    std::vector<Page> expected_edges;
    std::vector<Page> expected_resident;
    for (const auto& [page, of] : owners) {
      const int owner = *of.begin();
      auto& list = of.size() > 1        ? expected_edges
                   : owner == kResident ? expected_resident
                                        : expected[static_cast<std::size_t>(owner)];
      list.push_back(page);
    }

    const UnitLayout layout = lay_out_units(units, resident, kPage);
    for (std::size_t unit = 0; unit < units.size(); ++unit) {
      ASSERT_EQ(pages_of(layout.units[unit]), expected[unit]) << "unit " << unit << " in round " << round;
    }
    ASSERT_EQ(pages_of(layout.edges), expected_edges) << round;
    ASSERT_EQ(pages_of(layout.resident), expected_resident) << round;
    const UnitTable table(layout.units, kPage);  // accepts it: whole pages without overlaps
    ASSERT_EQ(table.unit_count(), units.size());
  }
}

TEST(UnitLayout, NeighboursOfOneUnitAreOneExtent) {
  const std::vector<std::vector<Extent>> units = {{{0, kPage, kPage + 100}, {0, 2 * kPage + 100, 2 * kPage - 100}}};
  const UnitLayout layout = lay_out_units(units, {}, kPage);
  EXPECT_EQ(layout.units.front(), (std::vector<Extent>{{0, kPage, 3 * kPage}}));
  EXPECT_TRUE(layout.edges.empty());
}

TEST(UnitLayout, RefusesExtentsBeyondWhatFilesCanBe) {
  const std::vector<std::vector<Extent>> units = {{{0, std::numeric_limits<std::uint64_t>::max() - 10, 20}}};
  EXPECT_THROW(static_cast<void>(lay_out_units(units, {}, kPage)), ConfigError);
  const std::vector<Extent> resident = {{0, 20, std::numeric_limits<std::uint64_t>::max() - 10}};
  EXPECT_THROW(static_cast<void>(lay_out_units({}, resident, kPage)), ConfigError);
}

}  // namespace
}  // namespace tierpool
