#include "tierpool/pool/node_lanes.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <vector>

namespace tierpool {
namespace {

constexpr std::uint32_t kStride = NodeLanes::kLaneCount * NodeLanes::kRunLength;

TEST(NodeLanes, EveryIndexIsHandedOutOnceWhicheverLaneAsks) {
  NodeLanes lanes(kStride + 1);
  BlockNodes nodes(lanes.size());
  EXPECT_EQ(lanes.size(), 2u * kStride);
  std::set<std::uint32_t> taken;
  while (lanes.free_count() != 0) {
    const std::uint32_t node = lanes.take(nodes, 3);  // the others' too, when its own are all taken
    ASSERT_LT(node, lanes.size());
    ASSERT_TRUE(taken.insert(node).second) << node;
  }
  EXPECT_EQ(taken.size(), lanes.size());
}

TEST(NodeLanes, LanesShareNoCacheLine) {
  NodeLanes lanes(10 * kStride);
  BlockNodes nodes(lanes.size());
  constexpr std::uint32_t kPerLine = 64 / sizeof(std::uint32_t);
  std::vector<std::set<std::uint32_t>> lines(NodeLanes::kLaneCount);
  for (int i = 0; i < 3000; ++i) {
    for (std::uint32_t lane = 0; lane < NodeLanes::kLaneCount; ++lane) {
      lines[lane].insert(lanes.take(nodes, lane) / kPerLine);
    }
  }
  std::set<std::uint32_t> all;
  std::size_t count = 0;
  for (const auto& own : lines) {
    all.insert(own.begin(), own.end());
    count += own.size();
  }
  EXPECT_EQ(all.size(), count);
}

TEST(NodeLanes, IndexGivenBackIsTheNextOfItsOwnLane) {
  NodeLanes lanes(kStride);
  BlockNodes nodes(lanes.size());
  const std::uint32_t first = lanes.take(nodes, 0);
  const std::uint32_t second = lanes.take(nodes, 1);
  lanes.give_back(nodes, first);
  lanes.give_back(nodes, second);
  EXPECT_EQ(lanes.free_count(), lanes.size());
  EXPECT_EQ(lanes.take(nodes, 1), second);
  EXPECT_EQ(lanes.take(nodes, 8), first) << "lanes are counted modulo their number";
}

TEST(NodeLanes, NeverMoreThan32BitsCanName) {
  const NodeLanes lanes(UINT64_MAX / 2);
  EXPECT_LT(lanes.size(), std::uint64_t{kNoNode});
  EXPECT_GT(lanes.size(), std::uint64_t{kNoNode} - 2 * kStride);
}

}  // namespace
}  // namespace tierpool
