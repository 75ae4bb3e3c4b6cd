#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "support/checked_block_allocator.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"

namespace tierpool::testing {

/// What the block allocator keeps whatever its placement.
class PlacementContract : public ::testing::TestWithParam<Placement> {
 protected:
  [[nodiscard]] static BlockAllocator make(std::uint64_t capacity_bytes) { return {capacity_bytes, GetParam()}; }
};

[[nodiscard]] inline std::string placement_test_name(const ::testing::TestParamInfo<Placement>& info) {
  std::string name(to_string(info.param));
  std::ranges::replace(name, '-', '_');
  return name;
}

TEST_P(PlacementContract, ZeroBytesTakeOneUnit) {
  BlockAllocator blocks = make(4 * kUnitBytes);
  const Block block = blocks.allocate(0);
  ASSERT_TRUE(block);
  EXPECT_EQ(block.size_bytes, kUnitBytes);
  EXPECT_EQ(blocks.used_bytes(), kUnitBytes);
}

TEST_P(PlacementContract, SizesAreRoundedUpToUnits) {
  BlockAllocator blocks = make(64 * kUnitBytes);
  EXPECT_EQ(blocks.allocate(1).size_bytes, kUnitBytes);
  EXPECT_EQ(blocks.allocate(kUnitBytes).size_bytes, kUnitBytes);
  EXPECT_EQ(blocks.allocate(kUnitBytes + 1).size_bytes, 2 * kUnitBytes);
  EXPECT_EQ(blocks.used_bytes(), 4 * kUnitBytes);
}

TEST_P(PlacementContract, CapacityIsRoundedDownToUnits) {
  BlockAllocator blocks = make(3 * kUnitBytes + 255);
  EXPECT_EQ(blocks.capacity_bytes(), 3 * kUnitBytes);
  EXPECT_FALSE(blocks.allocate(3 * kUnitBytes + 1));
  EXPECT_TRUE(blocks.allocate(3 * kUnitBytes));
}

TEST_P(PlacementContract, HeapBelowOneUnitServesNothing) {
  BlockAllocator blocks = make(255);
  EXPECT_FALSE(blocks.allocate(0));
  EXPECT_EQ(blocks.largest_free_bytes(), 0u);
  EXPECT_EQ(blocks.largest_free_upper_bound_bytes(), 0u);
  EXPECT_TRUE(blocks.take_free_blocks(0).empty());
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, RequestOfTheWholeCapacityFillsItExactly) {
  BlockAllocator blocks = make(10 * kMiB);
  const Block block = blocks.allocate(10 * kMiB);
  ASSERT_TRUE(block);
  EXPECT_EQ(block.offset_bytes, 0u);
  EXPECT_EQ(blocks.free_bytes(), 0u);
  EXPECT_EQ(blocks.free_block_count(), 0u);
  EXPECT_FALSE(blocks.allocate(0));
  EXPECT_EQ(blocks.free(block.node, block.generation), 10 * kMiB);
  EXPECT_TRUE(blocks.allocate(10 * kMiB));
}

TEST_P(PlacementContract, ImpossibleSizesAreRefused) {
  BlockAllocator blocks = make(kMiB);
  for (const std::uint64_t bytes : {kMiB + 1, std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()}) {
    EXPECT_FALSE(blocks.allocate(bytes)) << bytes;
  }
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, OffsetsHaveTheirAlignment) {
  BlockAllocator blocks = make(64 * kMiB);
  for (std::uint64_t alignment = 1; alignment <= 4 * kMiB; alignment *= 2) {
    ASSERT_TRUE(blocks.allocate(kUnitBytes));
    const Block block = blocks.allocate(3 * kUnitBytes, alignment);
    ASSERT_TRUE(block) << alignment;
    EXPECT_EQ(block.offset_bytes % alignment, 0u) << alignment;
    EXPECT_EQ(block.size_bytes, 3 * kUnitBytes);
    ASSERT_EQ(blocks.find_inconsistency(), "");
  }
}

TEST_P(PlacementContract, AlignmentBeyondTheCapacityIsServedAtItsStart) {
  BlockAllocator blocks = make(16 * kUnitBytes);
  const Block first = blocks.allocate(kUnitBytes, kGiB);
  ASSERT_TRUE(first);
  EXPECT_EQ(first.offset_bytes, 0u);
  EXPECT_FALSE(blocks.allocate(kUnitBytes, kGiB));
  EXPECT_FALSE(blocks.allocate(kUnitBytes, std::uint64_t{1} << 63));
}

TEST_P(PlacementContract, NeighboursAreJoinedInEveryOrderOfFreeing) {
  std::vector<std::size_t> order(5);
  std::iota(order.begin(), order.end(), std::size_t{0});
  do {
    BlockAllocator blocks = make(5 * kMiB);
    std::vector<Block> live;
    for (std::size_t i = 0; i < order.size(); ++i) {
      live.push_back(blocks.allocate(kMiB));
      ASSERT_TRUE(live.back());
    }
    for (const std::size_t index : order) {
      ASSERT_EQ(blocks.free(live[index].node, live[index].generation), kMiB);
      ASSERT_EQ(blocks.find_inconsistency(), "");
    }
    ASSERT_EQ(blocks.free_block_count(), 1u);
    ASSERT_EQ(blocks.largest_free_bytes(), 5 * kMiB);
  } while (std::ranges::next_permutation(order).found);
}

TEST_P(PlacementContract, SecondFreeIsRefusedAndChangesNothing) {
  BlockAllocator blocks = make(kMiB);
  const Block kept = blocks.allocate(1000);
  const Block block = blocks.allocate(1000);
  EXPECT_EQ(blocks.free(block.node, block.generation), 1024u);
  EXPECT_EQ(blocks.free(block.node, block.generation), 0u);
  EXPECT_EQ(blocks.used_bytes(), kept.size_bytes);
  EXPECT_EQ(blocks.live_count(), 1u);
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, StaleHandleOfARecycledBlockIsRefused) {
  BlockAllocator blocks = make(kMiB);
  const Block old = blocks.allocate(1000);
  blocks.free(old.node, old.generation);
  const Block fresh = blocks.allocate(1000);
  ASSERT_EQ(fresh.node, old.node);
  ASSERT_EQ(fresh.offset_bytes, old.offset_bytes);
  EXPECT_NE(fresh.generation, old.generation);
  EXPECT_FALSE(blocks.is_live(old.node, old.generation));
  EXPECT_EQ(blocks.free(old.node, old.generation), 0u);
  EXPECT_TRUE(blocks.is_live(fresh.node, fresh.generation));
}

TEST_P(PlacementContract, UnknownHandlesAreRefused) {
  BlockAllocator blocks = make(kMiB);
  const Block block = blocks.allocate(1000);
  EXPECT_EQ(blocks.free(kNoNode, 1), 0u);
  EXPECT_EQ(blocks.free(1000, 1), 0u);
  EXPECT_EQ(blocks.free(block.node, block.generation + 1), 0u);
  EXPECT_EQ(blocks.free(block.node, block.generation + 2), 0u);
  EXPECT_EQ(blocks.live_count(), 1u);
}

TEST_P(PlacementContract, FindKnowsLiveBlocksByNodeAndOffsetTogether) {
  BlockAllocator blocks = make(kMiB);
  const Block first = blocks.allocate(1000);
  const Block second = blocks.allocate(1000);
  EXPECT_EQ(blocks.find(first.node, first.offset_bytes).generation, first.generation);
  EXPECT_EQ(blocks.find(second.node, second.offset_bytes).size_bytes, second.size_bytes);
  EXPECT_FALSE(blocks.find(first.node, second.offset_bytes));
  EXPECT_FALSE(blocks.find(1000, 0));
  blocks.free(first.node, first.generation);
  EXPECT_FALSE(blocks.find(first.node, first.offset_bytes));
}

TEST_P(PlacementContract, TakenFreeBlocksAreOutOfCirculationUntilFreed) {
  BlockAllocator blocks = make(8 * kMiB);
  std::vector<Block> live;
  for (int i = 0; i < 8; ++i) {
    live.push_back(blocks.allocate(kMiB));
  }
  std::ranges::sort(live, {}, &Block::offset_bytes);
  for (const std::size_t index : {0u, 3u, 4u, 6u}) {
    blocks.free(live[index].node, live[index].generation);
  }
  const std::vector<Block> taken = blocks.take_free_blocks(2 * kMiB);
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].offset_bytes, 3 * kMiB);
  EXPECT_EQ(taken[0].size_bytes, 2 * kMiB);
  EXPECT_FALSE(blocks.allocate(2 * kMiB));
  EXPECT_EQ(blocks.take_free_blocks(0).size(), 2u);
  EXPECT_EQ(blocks.free_bytes(), 0u);
  EXPECT_EQ(blocks.find_inconsistency(), "");
  EXPECT_EQ(blocks.free(taken[0].node, taken[0].generation), 2 * kMiB);
  EXPECT_TRUE(blocks.allocate(2 * kMiB));
}

TEST_P(PlacementContract, HeapOfThreeTebibytesIsCutToItsEnd) {
  constexpr std::uint64_t kCapacity = 3 * 1024 * kGiB;
  BlockAllocator blocks = make(kCapacity);
  const Block low = blocks.allocate(kCapacity - 5 * kGiB);
  const Block high = blocks.allocate(5 * kGiB - kUnitBytes);
  const Block last = blocks.allocate(1);
  ASSERT_TRUE(low && high && last);
  EXPECT_EQ(high.offset_bytes, kCapacity - 5 * kGiB);
  EXPECT_EQ(last.offset_bytes, kCapacity - kUnitBytes);
  EXPECT_EQ(blocks.free_bytes(), 0u);
  EXPECT_EQ(blocks.free(low.node, low.generation), kCapacity - 5 * kGiB);
  EXPECT_EQ(blocks.largest_free_bytes(), kCapacity - 5 * kGiB);
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, HeapOfEightyGigabytesServesItselfInOddSizes) {
  constexpr std::uint64_t kCapacity = 80'000'000'000;
  BlockAllocator blocks = make(kCapacity);
  std::vector<Block> live;
  std::uint64_t highest = 0;
  for (std::uint64_t size = 12'345'678;; size += 1'234'567) {
    const Block block = blocks.allocate(size, 4096);
    if (!block) {
      break;
    }
    EXPECT_EQ(block.offset_bytes % 4096, 0u);
    highest = std::max(highest, block.offset_bytes + block.size_bytes);
    live.push_back(block);
  }
  EXPECT_GT(highest, 70 * kGiB);
  EXPECT_LE(highest, kCapacity);
  for (const Block& block : live) {
    EXPECT_EQ(blocks.free(block.node, block.generation), block.size_bytes);
  }
  EXPECT_EQ(blocks.largest_free_bytes(), align_down(kCapacity, kUnitBytes));
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, UniformPagesReachFullUtilisationAfterAnyHistory) {
  // KV pages of sizes that are no powers of two, freed and taken in random order.
  for (const std::uint64_t page_bytes : {48 * kKiB, 80 * kKiB, 1'280 * kKiB, 33 * kUnitBytes}) {
    constexpr std::uint64_t kPages = 500;
    BlockAllocator blocks = make(kPages * page_bytes);
    std::mt19937_64 random(page_bytes);
    std::vector<Block> live;
    for (std::uint64_t round = 0; round < 20; ++round) {
      while (live.size() < kPages) {
        const Block block = blocks.allocate(page_bytes);
        ASSERT_TRUE(block) << page_bytes << " bytes, " << live.size() << " pages live";
        live.push_back(block);
      }
      ASSERT_EQ(blocks.free_bytes(), 0u);
      std::ranges::shuffle(live, random);
      for (std::uint64_t count = random() % kPages; count > 0; --count) {
        ASSERT_EQ(blocks.free(live.back().node, live.back().generation), page_bytes);
        live.pop_back();
      }
    }
  }
}

TEST_P(PlacementContract, ManyThousandBlocksGrowAndShrink) {
  constexpr std::uint64_t kBlocks = 20'000;
  BlockAllocator blocks = make(kBlocks * kUnitBytes);
  std::vector<Block> live;
  for (std::uint64_t i = 0; i < kBlocks; ++i) {
    live.push_back(blocks.allocate(1));
    ASSERT_TRUE(live.back());
  }
  EXPECT_EQ(blocks.free_bytes(), 0u);
  std::mt19937_64 random(7);
  std::ranges::shuffle(live, random);
  for (const Block& block : live) {
    ASSERT_EQ(blocks.free(block.node, block.generation), kUnitBytes);
  }
  EXPECT_EQ(blocks.free_block_count(), 1u);
  EXPECT_EQ(blocks.find_inconsistency(), "");
}

TEST_P(PlacementContract, RandomOperationsAgreeWithTheModelAndRefuseNothingThatFits) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 random(seed);
    const std::uint64_t capacity = (1 + random() % 2000) * kUnitBytes + random() % kUnitBytes;
    CheckedBlockAllocator blocks(capacity, GetParam());
    for (int step = 0; step < 600 && blocks.complaint().empty(); ++step) {
      const std::uint64_t choice = random() % 100;
      if (choice < 55) {
        const std::uint64_t bytes = random() % (std::uint64_t{1} << (random() % 18));
        blocks.allocate(bytes, std::uint64_t{1} << (random() % (random() % 4 == 0 ? 21 : 9)));
      } else if (choice < 95) {
        blocks.free(random());
      } else if (choice < 98) {
        blocks.free_stale(random());
      } else {
        blocks.take_free_blocks(random() % (capacity + 1));
      }
      blocks.check();
    }
    blocks.free_all();
    blocks.check();
    ASSERT_EQ(blocks.complaint(), "") << "seed " << seed;
  }
}

}  // namespace tierpool::testing
