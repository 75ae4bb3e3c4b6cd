#include "tierpool/pool/magazine_layout.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

TEST(SizeClass, EveryClassHoldsItsSizesAndWastesAtMostASixteenth) {
  std::uint64_t before = 0;
  std::size_t index = 0;
  for (std::uint64_t units = 1; units <= 5000; ++units) {
    const SizeClass found = size_class_of(units);
    ASSERT_GE(found.units, units);
    ASSERT_LE((found.units - units) * kClassesPerPowerOfTwo, found.units) << units;
    ASSERT_EQ(size_class_of(found.units).units, found.units) << "a class holds its own size";
    if (found.units != before) {
      ASSERT_EQ(found.index, index++) << "classes are numbered without a gap";
      before = found.units;
    }
  }
}

TEST(SizeClass, HugeSizesHaveClassesToo) {
  const std::uint64_t units = (std::uint64_t{1} << 55) + 1;
  EXPECT_GE(size_class_of(units).units, units);
}

TEST(SizeClass, ZeroBytesTakeAUnitAndOthersWholeOnes) {
  EXPECT_EQ(block_bytes_for(0), 256u);
  EXPECT_EQ(block_bytes_for(1), 256u);
  EXPECT_EQ(block_bytes_for(256), 256u);
  EXPECT_EQ(block_bytes_for(257), 512u);
}

TEST(MagazineLayout, SizesUpToTheLimitAreRoundedAndLargerOnesAreExact) {
  const MagazineLayout layout(kMiB);
  EXPECT_FALSE(layout.is_exact(kMiB));
  EXPECT_TRUE(layout.is_exact(kMiB + 1));
  EXPECT_EQ(layout.rounded_bytes(kMiB - 1000), kMiB);
  EXPECT_EQ(layout.rounded_bytes(kMiB + 1000), kMiB + 1024);
  EXPECT_LT(layout.index_for(kMiB), layout.class_count());
  EXPECT_GE(layout.index_for(kMiB + 1), layout.class_count());
  EXPECT_LT(layout.index_for(UINT64_MAX), layout.count());
}

TEST(MagazineLayout, LimitInsideAClassLeavesThatClassOut) {
  const MagazineLayout layout(98 * kUnitBytes);  // classes end at 96 and 100 units there
  EXPECT_EQ(layout.rounded_bytes(97 * kUnitBytes), 97 * kUnitBytes);
  EXPECT_EQ(layout.rounded_bytes(95 * kUnitBytes), 96 * kUnitBytes);
}

TEST(MagazineLayout, LimitOfZeroHasNoClasses) {
  const MagazineLayout layout(0);
  EXPECT_EQ(layout.class_count(), 0u);
  EXPECT_TRUE(layout.is_exact(0));
  EXPECT_EQ(layout.rounded_bytes(1000), 1024u);
  EXPECT_EQ(layout.count(), MagazineLayout::kExactSlots);
}

TEST(MagazineLayout, ExactSizesSpreadOverTheirMagazines) {
  const MagazineLayout layout(0);
  std::set<std::size_t> used;
  for (std::uint64_t units = 1; units <= 64; ++units) {
    used.insert(layout.index_for(units * kUnitBytes));
  }
  EXPECT_EQ(used.size(), MagazineLayout::kExactSlots);
}

}  // namespace
}  // namespace tierpool
