#include "tierpool/base/sparse_array.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <new>

namespace tierpool {
namespace {

TEST(SparseArray, BeginsWithZeros) {
  SparseArray<std::uint32_t> table(5000);
  EXPECT_EQ(table.size(), 5000u);
  for (std::size_t i = 0; i < table.size(); ++i) {
    ASSERT_EQ(table[i], 0u) << i;
  }
}

TEST(SparseArray, KeepsWhatIsWritten) {
  SparseArray<std::uint32_t> table(100000);
  for (std::size_t i = 0; i < table.size(); i += 7) {
    table[i] = static_cast<std::uint32_t>(i + 1);
  }
  for (std::size_t i = 0; i < table.size(); ++i) {
    ASSERT_EQ(table[i], i % 7 == 0 ? i + 1 : 0u) << i;
  }
}

// 64 GiB of entries: more than the machine would give if untouched entries cost memory.
TEST(SparseArray, UntouchedEntriesCostNoMemory) {
  SparseArray<std::uint32_t> table(std::size_t{1} << 34);
  table[table.size() - 1] = 3;
  EXPECT_EQ(table[table.size() - 1], 3u);
  EXPECT_EQ(table[table.size() / 2], 0u);
}

TEST(SparseArray, EmptyTableIsLegal) { EXPECT_NO_THROW(SparseArray<std::uint32_t>(0)); }

TEST(SparseArray, ImpossibleSizesThrow) {
  constexpr std::size_t kLargest = std::numeric_limits<std::size_t>::max();
  EXPECT_THROW(SparseArray<std::uint32_t>{kLargest}, std::bad_alloc);
  EXPECT_THROW(SparseArray<std::uint32_t>{kLargest / 4}, std::bad_alloc);
  EXPECT_THROW(SparseArray<std::uint32_t>{kLargest / 4 + 2}, std::bad_alloc);
}

}  // namespace
}  // namespace tierpool
