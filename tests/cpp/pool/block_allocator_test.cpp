#include "tierpool/pool/block_allocator.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "contracts/placement_contract.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::testing {

INSTANTIATE_TEST_SUITE_P(BlockAllocator, PlacementContract,
                         ::testing::Values(Placement::good_fit, Placement::best_fit, Placement::first_fit),
                         placement_test_name);

}  // namespace tierpool::testing

namespace tierpool {
namespace {

/// Free blocks of the given sizes, lowest first, kept apart by blocks of one unit; the rest of the heap is taken, its
/// beginning too, so that no offset is that of an empty block.
std::vector<Block> make_gaps(BlockAllocator& blocks, const std::vector<std::uint64_t>& sizes_bytes) {
  std::vector<Block> gaps;
  static_cast<void>(blocks.allocate(1));
  for (const std::uint64_t bytes : sizes_bytes) {
    gaps.push_back(blocks.allocate(bytes));
    static_cast<void>(blocks.allocate(1));
  }
  static_cast<void>(blocks.allocate(blocks.largest_free_bytes()));
  for (const Block& gap : gaps) {
    blocks.free(gap.node, gap.generation);
  }
  return gaps;
}

TEST(Placement, NamesAndValuesBelongTogether) {
  for (const std::string_view name : placement_names()) {
    EXPECT_EQ(to_string(parse_placement(name)), name);
  }
  EXPECT_EQ(placement_names().size(), 3u);
  EXPECT_EQ(parse_placement("good-fit"), Placement::good_fit);
  EXPECT_EQ(parse_placement("best-fit"), Placement::best_fit);
  EXPECT_EQ(parse_placement("first-fit"), Placement::first_fit);
}

TEST(Placement, UnknownNameIsRefusedWithTheNearest) {
  try {
    static_cast<void>(parse_placement("god-fit"));
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("good-fit"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("god-fit"), std::string::npos) << error.what();
  }
}

TEST(Placement, BestFitTakesTheSmallestFittingBlock) {
  BlockAllocator blocks(kMiB, Placement::best_fit);
  const std::vector<Block> gaps = make_gaps(blocks, {50 * kKiB, 20 * kKiB, 12 * kKiB, 14 * kKiB, 4 * kKiB});
  EXPECT_EQ(blocks.allocate(13 * kKiB).offset_bytes, gaps[3].offset_bytes);
  EXPECT_EQ(blocks.allocate(13 * kKiB).offset_bytes, gaps[1].offset_bytes);
  EXPECT_EQ(blocks.allocate(13 * kKiB).offset_bytes, gaps[0].offset_bytes);
}

TEST(Placement, BestFitTakesTheLowestOfEquals) {
  BlockAllocator blocks(kMiB, Placement::best_fit);
  const std::vector<Block> gaps = make_gaps(blocks, {16 * kKiB, 16 * kKiB, 16 * kKiB});
  for (const Block& gap : gaps) {
    EXPECT_EQ(blocks.allocate(10 * kKiB).offset_bytes, gap.offset_bytes);
    ASSERT_TRUE(blocks.allocate(6 * kKiB));
  }
}

TEST(Placement, FirstFitTakesTheLowestFittingBlock) {
  BlockAllocator blocks(kMiB, Placement::first_fit);
  const std::vector<Block> gaps = make_gaps(blocks, {4 * kKiB, 50 * kKiB, 13 * kKiB});
  EXPECT_EQ(blocks.allocate(13 * kKiB).offset_bytes, gaps[1].offset_bytes);
  EXPECT_EQ(blocks.allocate(2 * kKiB).offset_bytes, gaps[0].offset_bytes);
}

TEST(Placement, GoodFitPrefersABlockOfTheExactSizeToALargerOne) {
  BlockAllocator blocks(kMiB, Placement::good_fit);
  const std::vector<Block> gaps = make_gaps(blocks, {80 * kUnitBytes, 300 * kUnitBytes});
  EXPECT_EQ(blocks.allocate(80 * kUnitBytes).offset_bytes, gaps[0].offset_bytes);
  EXPECT_EQ(blocks.allocate(80 * kUnitBytes).offset_bytes, gaps[1].offset_bytes);
}

TEST(Placement, GoodFitFindsTheOnlyFittingBlockBehindManyOfItsBinThatDoNotFit) {
  BlockAllocator blocks(16 * kMiB, Placement::good_fit);
  // All of one bin (1024 ... 1055 units); the one that fits was freed first and is last in its list.
  std::vector<std::uint64_t> sizes = {1055 * kUnitBytes};
  sizes.insert(sizes.end(), 30, 1024 * kUnitBytes);
  const std::vector<Block> gaps = make_gaps(blocks, sizes);
  EXPECT_EQ(blocks.allocate(1050 * kUnitBytes).offset_bytes, gaps[0].offset_bytes);
  EXPECT_FALSE(blocks.allocate(1050 * kUnitBytes));
}

TEST(Placement, GoodFitFindsAnAlignedBlockInABinThatUsuallyDoesNotFit) {
  BlockAllocator blocks(64 * kUnitBytes, Placement::good_fit);
  ASSERT_TRUE(blocks.allocate(32 * kUnitBytes));
  const Block gap = blocks.allocate(2 * kUnitBytes);
  ASSERT_EQ(gap.offset_bytes, 32 * kUnitBytes);
  ASSERT_TRUE(blocks.allocate(30 * kUnitBytes));
  blocks.free(gap.node, gap.generation);
  EXPECT_EQ(blocks.allocate(2 * kUnitBytes, 32 * kUnitBytes).offset_bytes, 32 * kUnitBytes);
}

}  // namespace
}  // namespace tierpool
