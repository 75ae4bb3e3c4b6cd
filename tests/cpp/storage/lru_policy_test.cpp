#include "tierpool/storage/lru_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>
#include <set>

namespace tierpool {
namespace {

TEST(LruPolicy, GivesUpWhatWasNotNeededForTheLongestTime) {
  constexpr std::uint32_t kUnits = 20;
  std::mt19937 engine(3);
  const auto random = [&] { return static_cast<UnitId>(engine()); };
  LruPolicy policy(kUnits);
  std::list<UnitId> model;  // the oldest first
  for (int step = 0; step < 20000; ++step) {
    const UnitId unit = random() % kUnits;
    const bool known = std::find(model.begin(), model.end(), unit) != model.end();
    if (random() % 3 != 0) {
      random() % 2 == 0 ? policy.requested(unit) : policy.prefetched(unit);
      model.remove(unit);
      model.push_back(unit);
    } else if (known) {
      policy.removed(unit);
      model.remove(unit);
    }
    std::set<UnitId> fixed;
    for (std::uint32_t i = random() % kUnits; i > 0; --i) {
      fixed.insert(random() % kUnits);
    }
    const auto may_go = [&](UnitId candidate) { return !fixed.contains(candidate); };
    const auto expected = std::find_if(model.begin(), model.end(), may_go);
    const std::optional<UnitId> victim = policy.victim(may_go);
    ASSERT_EQ(victim.has_value(), expected != model.end());
    if (victim) {
      ASSERT_EQ(*victim, *expected);
    }
  }
}

TEST(LruPolicy, EmptyOnesGiveUpNothing) {
  const LruPolicy policy(0);
  EXPECT_EQ(policy.victim([](UnitId) { return true; }), std::nullopt);
}

}  // namespace
}  // namespace tierpool
