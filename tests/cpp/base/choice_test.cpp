#include "tierpool/base/choice.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 3> kFruits{"apple", "pear", "plum"};

TEST(Choice, GivesTheIndexOfAKnownName) {
  for (std::size_t i = 0; i < kFruits.size(); ++i) {
    EXPECT_EQ(index_of_choice("fruit", kFruits[i], kFruits), i);
  }
}

TEST(Choice, RefusesOthersNamingTheNearestAndAll) {
  try {
    static_cast<void>(index_of_choice("fruit", "plumb", kFruits));
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("unknown fruit 'plumb'"), std::string::npos) << text;
    EXPECT_NE(text.find("did you mean 'plum'?"), std::string::npos) << text;
    EXPECT_NE(text.find("'apple', 'pear', 'plum'"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace tierpool
