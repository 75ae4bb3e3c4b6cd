#include "tierpool/base/memory_size.hpp"

#include <gtest/gtest.h>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

TEST(MemorySize, BytesBelowOneKibibyte) {
  EXPECT_EQ(format_memory_size(0), "0B");
  EXPECT_EQ(format_memory_size(712), "712B");
  EXPECT_EQ(format_memory_size(kKiB - 1), "1023B");
}

TEST(MemorySize, KibibytesBelowATenthOfAMebibyte) {
  EXPECT_EQ(format_memory_size(kKiB), "1KB");
  EXPECT_EQ(format_memory_size(kKiB + kKiB / 2), "1.5KB");
  EXPECT_EQ(format_memory_size(48 * kKiB), "48KB");
}

TEST(MemorySize, MebibytesFromThere) {
  EXPECT_EQ(format_memory_size(128 * kKiB), "0.1MB");
  EXPECT_EQ(format_memory_size(kMiB + kMiB / 2), "1.5MB");
  EXPECT_EQ(format_memory_size(512 * kMiB), "512MB");
  EXPECT_EQ(format_memory_size(80 * kGiB), "81920MB");
}

TEST(MemorySize, LargestValueFits) { EXPECT_EQ(format_memory_size(UINT64_MAX), "17592186044416MB"); }

}  // namespace
}  // namespace tierpool
