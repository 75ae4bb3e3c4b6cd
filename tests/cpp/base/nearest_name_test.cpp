#include "tierpool/base/nearest_name.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 4> kStrategies{"round-robin", "best-fit", "least-used", "most-used"};

TEST(NearestName, FindsATypingMistake) {
  EXPECT_EQ(nearest_name("round_robin", kStrategies), "round-robin");
  EXPECT_EQ(nearest_name("bestfit", kStrategies), "best-fit");
  EXPECT_EQ(nearest_name("least-usedd", kStrategies), "least-used");
  EXPECT_EQ(nearest_name("moost-used", kStrategies), "most-used");
}

TEST(NearestName, ExactNameWins) {
  for (const std::string_view name : kStrategies) {
    EXPECT_EQ(nearest_name(name, kStrategies), name);
  }
}

TEST(NearestName, LetterCaseIsFree) { EXPECT_EQ(nearest_name("MOST_USED", kStrategies), "most-used"); }

TEST(NearestName, FirstOfEqualsWins) {
  constexpr std::array<std::string_view, 3> kNames{"axe", "abe", "ace"};
  EXPECT_EQ(nearest_name("afe", kNames), "axe");
}

TEST(NearestName, CountsInsertionsDeletionsAndReplacementsAlike) {
  constexpr std::array<std::string_view, 2> kLongFirst{"abcdef", "abc"};
  constexpr std::array<std::string_view, 2> kShortFirst{"abc", "abcdef"};
  EXPECT_EQ(nearest_name("abcd", kLongFirst), "abc");
  EXPECT_EQ(nearest_name("abcde", kShortFirst), "abcdef");
  EXPECT_EQ(nearest_name("xbx", kLongFirst), "abc");
}

TEST(NearestName, EmptyInputs) {
  EXPECT_EQ(nearest_name("x", {}), "");
  EXPECT_EQ(nearest_name("", kStrategies), "best-fit");
  EXPECT_EQ(nearest_name(std::string(5000, 'q'), kStrategies), "round-robin");
}

}  // namespace
}  // namespace tierpool
