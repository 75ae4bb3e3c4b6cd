#include "tierpool/base/bytes.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace tierpool {
namespace {

TEST(Bytes, UnitsAreBinary) {
  EXPECT_EQ(kKiB, 1024u);
  EXPECT_EQ(kMiB, 1048576u);
  EXPECT_EQ(kGiB, 1073741824u);
}

TEST(Bytes, AlignUpKeepsMultiplesAndRaisesTheRest) {
  EXPECT_EQ(align_up(0, 256), 0u);
  EXPECT_EQ(align_up(1, 256), 256u);
  EXPECT_EQ(align_up(256, 256), 256u);
  EXPECT_EQ(align_up(257, 256), 512u);
  EXPECT_EQ(align_up(77, 1), 77u);
}

TEST(Bytes, AlignDownKeepsMultiplesAndLowersTheRest) {
  EXPECT_EQ(align_down(255, 256), 0u);
  EXPECT_EQ(align_down(256, 256), 256u);
  EXPECT_EQ(align_down(511, 256), 256u);
}

TEST(Bytes, AlignmentIsExactBeyondThirtyTwoBits) {
  const std::uint64_t large = (std::uint64_t{1} << 40) + 1;
  EXPECT_EQ(align_up(large, 2 * kMiB), (std::uint64_t{1} << 40) + 2 * kMiB);
  EXPECT_EQ(align_down(large, 2 * kMiB), std::uint64_t{1} << 40);
}

TEST(Bytes, PowersOfTwo) {
  EXPECT_FALSE(is_power_of_two(0));
  EXPECT_TRUE(is_power_of_two(1));
  EXPECT_FALSE(is_power_of_two(3));
  EXPECT_TRUE(is_power_of_two(std::uint64_t{1} << 63));
  EXPECT_FALSE(is_power_of_two(UINT64_MAX));
}

}  // namespace
}  // namespace tierpool
