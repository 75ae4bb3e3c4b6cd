#include "tierpool/storage/unit_table.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPage = 4096;

std::string error_of(const std::vector<std::vector<Extent>>& units, std::uint64_t page_bytes = kPage) {
  try {
    const UnitTable table(units, page_bytes);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(UnitTable, KnowsTheExtentsAndBytesOfEveryUnit) {
  const UnitTable table({{{0, 0, kPage}, {1, 8 * kPage, 2 * kPage}}, {}, {{0, kPage, kPage}}}, kPage);
  EXPECT_EQ(table.unit_count(), 3u);
  ASSERT_EQ(table.extents(0).size(), 2u);
  EXPECT_EQ(table.extents(0)[1], (Extent{1, 8 * kPage, 2 * kPage}));
  EXPECT_EQ(table.unit_bytes(0), 3 * kPage);
  EXPECT_TRUE(table.extents(1).empty());
  EXPECT_EQ(table.unit_bytes(1), 0u);
  EXPECT_EQ(table.extents(2).front(), (Extent{0, kPage, kPage}));
  EXPECT_EQ(table.largest_unit_bytes(), 3 * kPage);
  EXPECT_EQ(table.most_extents(), 2u);
  EXPECT_EQ(UnitTable({}, kPage).unit_count(), 0u);
}

TEST(UnitTable, RefusesWhatIsNotWholePages) {
  for (const Extent& extent :
       {Extent{0, 1, kPage}, Extent{0, 0, kPage + 1}, Extent{0, 0, 0}, Extent{0, 0 - kPage, kPage},
        Extent{0, kPage, 0 - kPage}, Extent{0, 0 - kPage, 2 * kPage}}) {
    const std::string error = error_of({{{0, 16 * kPage, kPage}}, {extent}});
    EXPECT_NE(error.find("Unit 1 has an extent of " + std::to_string(extent.size_bytes) + " bytes at " +
                         std::to_string(extent.offset_bytes) + " of file 0"),
              std::string::npos)
        << error;
  }
  EXPECT_NE(error_of({}, 3000).find("power of two, not 3000"), std::string::npos);
}

TEST(UnitTable, RefusesPagesOfTwoUnits) {
  EXPECT_NE(error_of({{{0, 4 * kPage, 2 * kPage}}, {{0, kPage, kPage}, {0, 5 * kPage, kPage}}}).find("Units overlap"),
            std::string::npos);
  EXPECT_NE(error_of({{{0, 0, kPage}, {0, 0, kPage}}}), "");
  EXPECT_EQ(error_of({{{0, 0, kPage}}, {{1, 0, kPage}}, {{0, kPage, kPage}}}), "");
}

}  // namespace
}  // namespace tierpool
