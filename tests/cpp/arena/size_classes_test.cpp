#include "tierpool/arena/size_classes.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

/// Sizes around every class border, up to the largest request.
std::vector<std::uint64_t> interesting_sizes() {
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t bytes = 0; bytes < 14000; ++bytes) {
    sizes.push_back(bytes);
  }
  for (int exponent = 14; exponent < 62; ++exponent) {
    for (std::uint64_t eighth = 8; eighth < 16; ++eighth) {
      const std::uint64_t border = eighth << (exponent - 3);
      sizes.insert(sizes.end(), {border - 1, border, border + 1});
    }
  }
  sizes.push_back(kMaxRequestBytes);
  return sizes;
}

TEST(SizeClasses, NamesAndValuesBelongTogether) {
  EXPECT_EQ(parse_size_classes("eighths"), SizeClasses::eighths);
  EXPECT_EQ(parse_size_classes("power-of-two"), SizeClasses::power_of_two);
  EXPECT_EQ(parse_size_classes("exact"), SizeClasses::exact);
  for (const char* name : {"eighths", "power-of-two", "exact"}) {
    EXPECT_EQ(to_string(parse_size_classes(name)), name);
  }
  EXPECT_THROW(static_cast<void>(parse_size_classes("eights")), ConfigError);
}

TEST(SizeClasses, PowersAreThoseOfTheOriginal) {
  const auto class_of = [](std::uint64_t bytes) { return class_bytes_for(SizeClasses::power_of_two, bytes); };
  EXPECT_EQ(class_of(0), 1u);
  EXPECT_EQ(class_of(1), 1u);
  EXPECT_EQ(class_of(2), 2u);
  EXPECT_EQ(class_of(3), 4u);
  EXPECT_EQ(class_of(1023), 1024u);
  EXPECT_EQ(class_of(1024), 1024u);
  EXPECT_EQ(class_of(1025), 2048u);
}

TEST(SizeClasses, EighthsAreWholeUnitsFirst) {
  const auto class_of = [](std::uint64_t bytes) { return class_bytes_for(SizeClasses::eighths, bytes); };
  EXPECT_EQ(class_of(0), 256u);
  EXPECT_EQ(class_of(1), 256u);
  EXPECT_EQ(class_of(256), 256u);
  EXPECT_EQ(class_of(257), 512u);
  EXPECT_EQ(class_of(2048), 2048u);
  EXPECT_EQ(class_of(2049), 2304u);
  EXPECT_EQ(class_of(4096), 4096u);
  EXPECT_EQ(class_of(4097), 4608u);
  EXPECT_EQ(class_of(1 << 20), 1u << 20);
}

TEST(SizeClasses, EighthsWasteAnEighthAtMostFromTwoKibibytes) {
  for (const std::uint64_t bytes : interesting_sizes()) {
    const std::uint64_t class_bytes = class_bytes_for(SizeClasses::eighths, bytes);
    ASSERT_GE(class_bytes, bytes);
    ASSERT_EQ(class_bytes % 256, 0u) << bytes;
    if (bytes >= 2048) {
      ASSERT_LE(class_bytes - bytes, bytes / 8) << bytes;
    } else {
      ASSERT_LE(class_bytes - bytes, 256u) << bytes;
    }
  }
}

// A class number must name one size, and a larger request never a smaller class.
TEST(SizeClasses, NumbersAndSizesAreOneToOne) {
  for (const auto number_of : {eighths_class, power_of_two_class}) {
    NumberedClass last = number_of(0);
    EXPECT_EQ(last.index, 0u);
    for (const std::uint64_t bytes : interesting_sizes()) {
      const NumberedClass now = number_of(bytes);
      ASSERT_LT(now.index, kNumberedClasses);
      ASSERT_GE(now.bytes, last.bytes) << bytes;
      ASSERT_EQ(now.index == last.index, now.bytes == last.bytes) << bytes;
      ASSERT_EQ(number_of(now.bytes).index, now.index) << bytes;
      last = now;
    }
  }
}

TEST(SizeClasses, ExactRoundsNothing) {
  for (const std::uint64_t bytes : interesting_sizes()) {
    ASSERT_EQ(class_bytes_for(SizeClasses::exact, bytes), bytes);
  }
}

}  // namespace
}  // namespace tierpool
