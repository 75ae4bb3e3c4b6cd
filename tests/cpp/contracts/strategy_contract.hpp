#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tierpool/pool/heap_selection.hpp"

namespace tierpool::testing {

[[nodiscard]] inline std::vector<std::uint32_t> ordered(Strategy strategy, const std::vector<HeapView>& heaps,
                                                        std::uint64_t bytes, std::uint64_t turn = 0) {
  std::vector<std::uint32_t> order(heaps.size());
  order.resize(order_heaps(strategy, heaps, bytes, turn, order));
  return order;
}

/// What every strategy keeps.
class StrategyContract : public ::testing::TestWithParam<Strategy> {};

[[nodiscard]] inline std::string strategy_test_name(const ::testing::TestParamInfo<Strategy>& info) {
  std::string name(to_string(info.param));
  std::ranges::replace(name, '-', '_');
  return name;
}

TEST_P(StrategyContract, EveryHeapThatMayServeIsTriedOnceAndNoOther) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 500; ++round) {
    std::vector<HeapView> heaps(random() % 40);
    std::set<std::uint32_t> able;
    for (std::uint32_t i = 0; i < heaps.size(); ++i) {
      heaps[i] = {random() % 10, random() % 10};
      if (heaps[i].largest_free_bytes >= 4) {
        able.insert(i);
      }
    }
    const std::vector<std::uint32_t> order = ordered(GetParam(), heaps, 4, random());
    ASSERT_EQ(order.size(), able.size());
    ASSERT_EQ(std::set<std::uint32_t>(order.begin(), order.end()), able);
  }
}

TEST_P(StrategyContract, NoHeapsMakeAnEmptyOrder) { EXPECT_TRUE(ordered(GetParam(), {}, 1, 7).empty()); }

TEST_P(StrategyContract, TheSameHeapsMakeTheSameOrder) {
  const std::vector<HeapView> heaps = {{3, 5}, {1, 9}, {4, 2}, {1, 9}};
  EXPECT_EQ(ordered(GetParam(), heaps, 2, 6), ordered(GetParam(), heaps, 2, 6));
}

TEST_P(StrategyContract, EqualHeapsAreTriedByIndexFromTheFirstTurnOn) {
  const std::vector<HeapView> heaps(5, HeapView{100, 100});
  EXPECT_EQ(ordered(GetParam(), heaps, 1), (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
}

TEST_P(StrategyContract, AHeapThatFitsExactlyIsTried) {
  EXPECT_EQ(ordered(GetParam(), {{0, 99}, {0, 100}}, 100), std::vector<std::uint32_t>{1});
}

}  // namespace tierpool::testing
