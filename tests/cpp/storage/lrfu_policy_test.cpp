#include "tierpool/storage/lrfu_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace tierpool {
namespace {

constexpr std::uint32_t kUnits = 20;

/// The definition: every request counts by its age.
class Definition {
 public:
  explicit Definition(double half_life) : half_life_(half_life) {}

  void requested(UnitId unit) {
    ++now_;
    requests_[unit].push_back(now_);
    present_.insert(unit);
  }
  void removed(UnitId unit) { present_.erase(unit); }
  [[nodiscard]] bool is_present(UnitId unit) const { return present_.contains(unit); }
  [[nodiscard]] double count(UnitId unit) const {
    double sum = 0;
    for (const double when : requests_.at(unit)) {
      sum += half_life_ > 0 ? std::exp2((when - now_) / half_life_) : 0;
    }
    return half_life_ > 0 ? sum : requests_.at(unit).back();
  }
  /// The least count of those that may go; below 0 when there is none.
  template <typename MayGo>
  [[nodiscard]] double least(MayGo may_go) const {
    double least = -1;
    for (const UnitId unit : present_) {
      if (may_go(unit) && (least < 0 || count(unit) < least)) {
        least = count(unit);
      }
    }
    return least;
  }

 private:
  const double half_life_;
  double now_ = 0;
  std::map<UnitId, std::vector<double>> requests_;
  std::set<UnitId> present_;
};

class LrfuPolicyTest : public ::testing::TestWithParam<double> {};

TEST_P(LrfuPolicyTest, GivesUpWhatItsDefinitionDoes) {
  std::mt19937 engine(3);
  const auto random = [&] { return static_cast<UnitId>(engine()); };
  LrfuPolicy policy(kUnits, GetParam());
  Definition definition(GetParam());
  for (int step = 0; step < 3000; ++step) {
    const UnitId unit = std::min(random() % kUnits, random() % kUnits);
    if (random() % 3 != 0) {
      policy.requested(unit);
      definition.requested(unit);
    } else {
      policy.removed(unit);
      definition.removed(unit);
    }
    std::set<UnitId> fixed;
    for (std::uint32_t i = random() % kUnits; i > 0; --i) {
      fixed.insert(random() % kUnits);
    }
    const auto may_go = [&](UnitId candidate) { return !fixed.contains(candidate); };
    const double least = definition.least(may_go);
    const std::optional<UnitId> victim = policy.victim(may_go);
    ASSERT_EQ(victim.has_value(), least >= 0) << step;
    if (victim) {
      ASSERT_TRUE(definition.is_present(*victim) && may_go(*victim)) << step;
      ASSERT_NEAR(definition.count(*victim), least, 1e-9 * least) << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(HalfLives, LrfuPolicyTest, ::testing::Values(0.0, 1.0, 10.0, 1000.0));

TEST(LrfuPolicy, WhatWasOnlyPrefetchedGoesBeforeWhatWasNeeded) {
  LrfuPolicy policy(4);
  policy.requested(2);
  policy.prefetched(1);
  policy.requested(3);
  policy.prefetched(2);
  const auto any = [](UnitId) { return true; };
  EXPECT_EQ(policy.victim(any), 1U);
  policy.removed(1);
  EXPECT_EQ(policy.victim(any), 2U);
}

TEST(LrfuPolicy, AUnitThatComesBackIsKnown) {
  LrfuPolicy policy(2, 100);
  for (int i = 0; i < 5; ++i) {
    policy.requested(0);
  }
  policy.removed(0);
  policy.requested(1);
  policy.requested(1);
  policy.prefetched(0);
  EXPECT_EQ(policy.victim([](UnitId) { return true; }), 1U);
}

TEST(LrfuPolicy, EmptyOnesGiveUpNothing) {
  const LrfuPolicy policy(0);
  EXPECT_EQ(policy.victim([](UnitId) { return true; }), std::nullopt);
}

/// Experts of one layer of 64, four a token: those whose popularity times a number of the token is largest. With
/// `persistence` the numbers change only slowly.
class Router {
 public:
  Router(double spread, double persistence) : persistence_(persistence), values_(kExperts), popularity_(kExperts) {
    std::lognormal_distribution<double> popularity(0, spread);
    std::generate(popularity_.begin(), popularity_.end(), [&] { return popularity(random_); });
    std::generate(values_.begin(), values_.end(), [&] { return normal_(random_); });
  }
  static constexpr std::uint32_t kExperts = 64;

  std::vector<UnitId> next() {
    std::vector<UnitId> experts(kExperts);
    for (UnitId expert = 0; expert < kExperts; ++expert) {
      const double fresh = normal_(random_);
      values_[expert] = persistence_ * values_[expert] + std::sqrt(1 - persistence_ * persistence_) * fresh;
      experts[expert] = expert;
    }
    std::partial_sort(experts.begin(), experts.begin() + 4, experts.end(),
                      [this](UnitId a, UnitId b) { return values_[a] * popularity_[a] > values_[b] * popularity_[b]; });
    experts.resize(4);
    return experts;
  }

 private:
  const double persistence_;
  std::mt19937 random_{1};
  std::normal_distribution<double> normal_;
  std::vector<double> values_;
  std::vector<double> popularity_;
};

std::uint32_t count_misses(LrfuPolicy policy, Router router, std::size_t slots) {
  std::set<UnitId> present;
  std::uint32_t misses = 0;
  for (int token = 0; token < 5000; ++token) {
    const std::vector<UnitId> needed = router.next();
    for (const UnitId unit : needed) {
      policy.requested(unit);
      misses += present.insert(unit).second ? 1 : 0;
    }
    while (present.size() > slots) {
      const auto unneeded = [&](UnitId unit) { return std::find(needed.begin(), needed.end(), unit) == needed.end(); };
      const UnitId victim = policy.victim(unneeded).value();
      policy.removed(victim);
      present.erase(victim);
    }
  }
  return misses;
}

TEST(LrfuPolicy, MissesFewerThanLruWhereSomeAreMorePopularAndNoMoreWhereTheLastComeAgain) {
  for (const std::size_t slots : {16, 21, 32}) {
    const auto ratio = [slots](const Router& router) {
      const std::uint32_t ours = count_misses(LrfuPolicy(Router::kExperts), router, slots);
      return static_cast<double>(ours) / count_misses(LrfuPolicy(Router::kExperts, 0), router, slots);
    };
    const double popular = ratio(Router(0.5, 0));
    const double persistent = ratio(Router(0.3, 0.8));
    EXPECT_LT(popular, 0.95) << slots;
    EXPECT_LT(persistent, 1.03) << slots;
  }
}

}  // namespace
}  // namespace tierpool
