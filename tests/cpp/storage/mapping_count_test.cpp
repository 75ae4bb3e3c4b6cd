#include "tierpool/storage/mapping_count.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPage = 4096;

Extent pages(std::uint64_t first, std::uint64_t count) { return {0, first * kPage, count * kPage}; }

std::uint64_t most(const std::vector<std::vector<Extent>>& units, const std::vector<Extent>& copies,
                   std::uint64_t file_pages, std::uint64_t slots) {
  return MappingCount(UnitTable(units, kPage), copies, std::vector<Extent>{pages(0, file_pages)}).most(slots);
}

TEST(MappingCount, APartThatFillsTheGapBetweenCopiesAddsNothing) {
  const std::vector<Extent> copies{pages(0, 1), pages(3, 1), pages(6, 1)};
  const std::vector<std::vector<Extent>> units{{pages(1, 2)}, {pages(4, 2)}};
  for (const std::uint64_t slots : {0U, 1U, 2U, 9U}) {
    EXPECT_EQ(most(units, copies, 7, slots), 5U);
  }
  EXPECT_EQ(most(units, copies, 9, 2), 6U);  // and the rest of the file behind the last copy
}

TEST(MappingCount, APartSplitsItsGapOnEverySideWhereSomethingIsLeft) {
  EXPECT_EQ(most({{pages(1, 1)}}, {}, 3, 1), 3U);
  EXPECT_EQ(most({{pages(0, 1)}}, {}, 3, 1), 2U);
  EXPECT_EQ(most({{pages(0, 3)}}, {}, 3, 1), 1U);
  EXPECT_EQ(most({{pages(1, 1)}, {pages(2, 1)}}, {pages(0, 1), pages(3, 1)}, 4, 1), 4U);
  EXPECT_EQ(most({{pages(1, 1)}, {pages(2, 1)}}, {pages(0, 1), pages(3, 1)}, 4, 2), 4U);
}

TEST(MappingCount, TheUnitsThatSplitMostCount) {
  const std::vector<std::vector<Extent>> units{{pages(0, 2)}, {pages(4, 1), pages(7, 1)}, {pages(10, 1)}};
  EXPECT_EQ(most(units, {}, 20, 1), 5U);
  EXPECT_EQ(most(units, {}, 20, 2), 7U);
  EXPECT_EQ(most(units, {}, 20, 3), 8U);
}

TEST(MappingCount, CopiesThatTouchAreMappingsOfTheirOwn) { EXPECT_EQ(most({}, {pages(1, 1), pages(2, 1)}, 4, 0), 4U); }

TEST(MappingCount, FilesHaveNoGapInCommon) {
  const std::vector<Extent> files{pages(0, 2), {1, 8 * kPage, 2 * kPage}};
  const MappingCount count(UnitTable({{{1, 8 * kPage, kPage}}}, kPage), {}, files);
  EXPECT_EQ(count.most(0), 2U);
  EXPECT_EQ(count.most(1), 3U);
}

TEST(MappingCount, RefusesWhatIsNotInAFile) {
  EXPECT_THROW(most({{pages(2, 2)}}, {}, 3, 1), ConfigError);
  EXPECT_THROW(most({}, {{1, 0, kPage}}, 3, 1), ConfigError);
  EXPECT_THROW(most({}, {{0, 1, kPage}}, 3, 1), ConfigError);
}

/// Mappings of a file of which every page shows its owner: a copy, a unit, or the file.
std::uint64_t count_runs(const std::vector<int>& shown) {
  std::uint64_t runs = 0;
  for (std::size_t page = 0; page < shown.size(); ++page) {
    runs += page == 0 || shown[page] != shown[page - 1] ? 1 : 0;
  }
  return runs;
}

TEST(MappingCount, NoChoiceOfUnitsNeedsMore) {
  constexpr int kUnits = 6;
  constexpr int kFile = -1;
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::vector<Extent>> units(kUnits);
    std::vector<Extent> copies;
    std::vector<int> owner_of_page;  // a number for each extent
    std::vector<int> unit_of_owner;
    while (owner_of_page.size() < 40) {
      const std::uint64_t count = 1 + random() % 3;
      const int unit = static_cast<int>(random() % (kUnits + 4));
      const Extent extent = pages(owner_of_page.size(), count);
      const bool covered = unit < kUnits + 3;
      if (unit < kUnits) {
        units[static_cast<std::size_t>(unit)].push_back(extent);
      } else if (covered) {
        copies.push_back(extent);
      }
      owner_of_page.insert(owner_of_page.end(), count, covered ? static_cast<int>(unit_of_owner.size()) : kFile);
      unit_of_owner.push_back(unit);
    }
    std::vector<std::uint64_t> most_runs(kUnits + 1, 0);  // by number of units shown
    for (unsigned shown_units = 0; shown_units < (1U << kUnits); ++shown_units) {
      std::vector<int> shown;
      std::size_t slots = 0;
      for (int unit = 0; unit < kUnits; ++unit) {
        slots += (shown_units >> unit) & 1U;
      }
      for (const int owner : owner_of_page) {
        const int unit = owner == kFile ? kFile : unit_of_owner[static_cast<std::size_t>(owner)];
        const bool hidden = unit >= 0 && unit < kUnits && ((shown_units >> unit) & 1U) == 0;
        shown.push_back(hidden ? kFile : owner);
      }
      most_runs[slots] = std::max(most_runs[slots], count_runs(shown));
    }
    std::uint64_t needed = 0;
    for (std::size_t slots = 0; slots <= kUnits; ++slots) {
      needed = std::max(needed, most_runs[slots]);
      ASSERT_GE(most(units, copies, owner_of_page.size(), slots), needed) << round << " " << slots;
    }
    ASSERT_EQ(most(units, copies, owner_of_page.size(), 0), most_runs[0]) << round;
  }
}

}  // namespace
}  // namespace tierpool
