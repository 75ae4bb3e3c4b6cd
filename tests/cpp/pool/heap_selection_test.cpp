#include "tierpool/pool/heap_selection.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "contracts/strategy_contract.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::testing {

INSTANTIATE_TEST_SUITE_P(HeapSelection, StrategyContract,
                         ::testing::Values(Strategy::round_robin, Strategy::best_fit, Strategy::least_used,
                                           Strategy::most_used),
                         strategy_test_name);

}  // namespace tierpool::testing

namespace tierpool {
namespace {

using Order = std::vector<std::uint32_t>;
using testing::ordered;

// used, largest free
const std::vector<HeapView> kHeaps = {{50, 30}, {10, 90}, {80, 20}, {10, 60}};

TEST(Strategy, NamesAndValuesBelongTogether) {
  for (const std::string_view name : strategy_names()) {
    EXPECT_EQ(to_string(parse_strategy(name)), name);
  }
  EXPECT_EQ(strategy_names().size(), 4u);
  EXPECT_EQ(parse_strategy("round-robin"), Strategy::round_robin);
  EXPECT_EQ(parse_strategy("best-fit"), Strategy::best_fit);
  EXPECT_EQ(parse_strategy("least-used"), Strategy::least_used);
  EXPECT_EQ(parse_strategy("most-used"), Strategy::most_used);
}

TEST(Strategy, UnknownNameIsRefusedWithTheNearest) {
  try {
    static_cast<void>(parse_strategy("least-busy"));
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("least-used"), std::string::npos) << error.what();
  }
}

TEST(Strategy, RoundRobinBeginsWhereItsTurnIsAndWrapsAround) {
  EXPECT_EQ(ordered(Strategy::round_robin, kHeaps, 1, 0), (Order{0, 1, 2, 3}));
  EXPECT_EQ(ordered(Strategy::round_robin, kHeaps, 1, 2), (Order{2, 3, 0, 1}));
  EXPECT_EQ(ordered(Strategy::round_robin, kHeaps, 1, 7), (Order{3, 0, 1, 2}));
  EXPECT_EQ(ordered(Strategy::round_robin, kHeaps, 25, 2), (Order{3, 0, 1}));
}

TEST(Strategy, BestFitTriesTheSmallestLargestFreeBlockFirst) {
  EXPECT_EQ(ordered(Strategy::best_fit, kHeaps, 1), (Order{2, 0, 3, 1}));
  EXPECT_EQ(ordered(Strategy::best_fit, kHeaps, 31), (Order{3, 1}));
}

TEST(Strategy, LeastUsedTriesTheEmptiestFirst) {
  EXPECT_EQ(ordered(Strategy::least_used, kHeaps, 1), (Order{1, 3, 0, 2}));
}

TEST(Strategy, MostUsedTriesTheFullestFirst) {
  EXPECT_EQ(ordered(Strategy::most_used, kHeaps, 1), (Order{2, 0, 1, 3}));
  EXPECT_EQ(ordered(Strategy::most_used, kHeaps, 25), (Order{0, 1, 3}));
}

TEST(Strategy, OnlyRoundRobinHeedsTheTurn) {
  for (const Strategy strategy : {Strategy::best_fit, Strategy::least_used, Strategy::most_used}) {
    EXPECT_EQ(ordered(strategy, kHeaps, 1, 3), ordered(strategy, kHeaps, 1, 0)) << to_string(strategy);
  }
}

}  // namespace
}  // namespace tierpool
