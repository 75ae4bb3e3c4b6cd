#include "tierpool/pool/thread_cache.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <vector>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

class ThreadCacheTest : public ::testing::Test {
 protected:
  ThreadCacheTest() { cache_.set_max_bytes(kMiB); }

  /// Whether a block of that size could be parked; its address tells blocks apart.
  bool park(std::uint64_t bytes, std::uint64_t address) {
    const auto index = static_cast<std::uint32_t>(layout_.index_for(bytes));
    Magazine* magazine = cache_.magazine_with_room(index, bytes);
    if (magazine == nullptr && cache_.make_room(index, bytes)) {
      magazine = cache_.magazine_with_room(index, bytes);
    }
    if (magazine != nullptr) {
      magazine->push({.address = address, .heap_index = 1});
    }
    return magazine != nullptr;
  }
  [[nodiscard]] std::uint64_t parked_bytes() const {
    std::vector<ParkedTotals> totals(2);
    cache_.add_parked(totals);
    EXPECT_EQ(totals[0].count, 0u);
    return totals[1].bytes;
  }

  MagazineLayout layout_{64 * kKiB};
  std::vector<std::uint64_t> given_back_;
  ThreadCache::GiveBack give_back_ = [this](std::span<const ParkedBlock> blocks) {
    for (const ParkedBlock& block : blocks) {
      given_back_.push_back(block.address);
    }
  };
  ThreadCache cache_{layout_, 2, 0, give_back_};
};

TEST_F(ThreadCacheTest, ServesTheBlockThatWasParkedLast) {
  Allocation allocation;
  EXPECT_FALSE(cache_.take(1024, allocation));
  ASSERT_TRUE(park(1024, 1));
  ASSERT_TRUE(park(1024, 2));
  ASSERT_TRUE(cache_.take(1000, allocation));
  EXPECT_EQ(allocation.address, 2u);
  EXPECT_EQ(allocation.block_bytes, 1024u);
  EXPECT_EQ(allocation.dirty_bytes, 1024u);
  EXPECT_EQ(allocation.heap_index, 1u);
  EXPECT_EQ(allocation.magazine, layout_.index_for(1024));
  ASSERT_TRUE(cache_.take(1024, allocation));
  EXPECT_EQ(allocation.address, 1u);
  EXPECT_FALSE(cache_.take(1024, allocation));
}

TEST_F(ThreadCacheTest, BlockThatFillsNoClassIsNotParked) {
  EXPECT_FALSE(park(33 * kUnitBytes, 1)) << "that class has 34 units";
  EXPECT_TRUE(park(34 * kUnitBytes, 1));
}

TEST_F(ThreadCacheTest, IndexFromElsewhereIsRefused) {
  EXPECT_EQ(cache_.magazine_with_room(kNoMagazine, 1024), nullptr);
  EXPECT_FALSE(cache_.make_room(kNoMagazine, 1024));
}

TEST_F(ThreadCacheTest, ExactSizeGetsAMagazineWhenItIsMissedTwiceInARow) {
  constexpr std::uint64_t kBytes = 100 * kKiB;
  EXPECT_FALSE(park(kBytes, 1));
  cache_.note_miss(kBytes);
  EXPECT_FALSE(park(kBytes, 1));
  cache_.note_miss(kBytes - 5);  // the same in whole units
  EXPECT_TRUE(park(kBytes, 1));
  Allocation allocation;
  EXPECT_FALSE(cache_.take(kBytes + kUnitBytes, allocation));
  EXPECT_TRUE(cache_.take(kBytes, allocation));
  EXPECT_EQ(allocation.block_bytes, kBytes);
}

TEST_F(ThreadCacheTest, ExactSizeThatTakesOverAMagazineGivesBackWhatWasThere) {
  std::map<std::size_t, std::uint64_t> by_index;
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  for (std::uint64_t bytes = 100 * kKiB; second == 0; bytes += kUnitBytes) {
    const auto [found, is_new] = by_index.emplace(layout_.index_for(bytes), bytes);
    if (!is_new) {
      first = found->second;
      second = bytes;
    }
  }
  cache_.note_miss(first);
  cache_.note_miss(first);
  ASSERT_TRUE(park(first, 7));
  cache_.note_miss(second);
  EXPECT_TRUE(given_back_.empty());
  cache_.note_miss(second);
  EXPECT_EQ(given_back_, std::vector<std::uint64_t>{7});
  EXPECT_FALSE(park(first, 8));
  EXPECT_TRUE(park(second, 9));
}

TEST_F(ThreadCacheTest, NeverHoldsMoreThanTheLimitAndGivesBackTheLongestParkedHalf) {
  cache_.set_max_bytes(64 * kKiB);
  for (std::uint64_t address = 1; address <= 200; ++address) {
    ASSERT_TRUE(park(1024, address));
    ASSERT_LE(parked_bytes(), 64 * kKiB);
  }
  ASSERT_FALSE(given_back_.empty());
  for (std::size_t i = 0; i < given_back_.size(); ++i) {
    EXPECT_EQ(given_back_[i], i + 1);
  }
  EXPECT_EQ(given_back_.size() * 1024 + parked_bytes(), 200u * 1024);
  EXPECT_GE(parked_bytes(), 16 * kKiB);
}

TEST_F(ThreadCacheTest, BlockLargerThanHalfTheLimitIsNotParked) {
  cache_.set_max_bytes(64 * kKiB);
  EXPECT_FALSE(park(34 * kKiB, 1));
  EXPECT_TRUE(park(32 * kKiB, 1));
}

TEST_F(ThreadCacheTest, FlushGivesBackEverythingAndLeavesNoPlaces) {
  ASSERT_TRUE(park(1024, 1));
  ASSERT_TRUE(park(4096, 2));
  EXPECT_EQ(cache_.flush(), 2u);
  EXPECT_EQ(given_back_.size(), 2u);
  EXPECT_EQ(parked_bytes(), 0u);
  EXPECT_EQ(cache_.magazine_with_room(static_cast<std::uint32_t>(layout_.index_for(1024)), 1024), nullptr);
  EXPECT_FALSE(cache_.is_over_limit());
}

TEST_F(ThreadCacheTest, LimitOfZeroParksNothing) {
  ASSERT_TRUE(park(1024, 1));
  cache_.set_max_bytes(0);
  EXPECT_TRUE(cache_.is_over_limit());
  EXPECT_EQ(cache_.flush(), 1u);
  EXPECT_FALSE(park(1024, 2));
}

TEST_F(ThreadCacheTest, RefillsOfSmallBlocksDoubleAndThoseOfLargeOnesStayAtOne) {
  const auto small = static_cast<std::uint32_t>(layout_.index_for(1024));
  EXPECT_EQ(cache_.extra_blocks(small, 1024), 0u);
  EXPECT_EQ(cache_.extra_blocks(small, 1024), 1u);
  EXPECT_EQ(cache_.extra_blocks(small, 1024), 3u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_LE(cache_.extra_blocks(small, 1024), 63u);
  }
  const auto large = static_cast<std::uint32_t>(layout_.index_for(64 * kKiB));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(cache_.extra_blocks(large, 64 * kKiB), 0u);
  }
  EXPECT_EQ(cache_.extra_blocks(layout_.class_count(), 100 * kKiB), 0u) << "never for exact sizes";
  EXPECT_EQ(cache_.extra_blocks(small, 768), 0u) << "nor for a block that its magazine does not take";
}

}  // namespace
}  // namespace tierpool
