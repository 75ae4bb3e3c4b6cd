#include "tierpool/pool/commit_map.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "support/hooked_device.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"
#include "tierpool/pool/block_node.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;

class CommitMapTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kGranules = 200;  // more than three words of the bitmap
  SimulatedDevice device_{kGiB, kGranule};
  Reservation reservation_ = device_.reserve(kGranules * kGranule);
  CommitMap map_{device_, reservation_, kGranules* kGranule};
  bool complete_ = false;
  bool refused_ = false;
};

TEST_F(CommitMapTest, NothingIsCommittedAtFirst) {
  EXPECT_EQ(map_.committed_bytes(), 0u);
  EXPECT_FALSE(map_.covers(0, 1));
  EXPECT_EQ(device_.call_count(DeviceCall::commit), 0u);
}

TEST_F(CommitMapTest, CommitTakesEveryGranuleTheRangeTouchesAndNoMore) {
  EXPECT_EQ(map_.commit(kGranule - 1, kGranule + 2, complete_), 3 * kGranule);
  EXPECT_TRUE(complete_);
  EXPECT_TRUE(map_.covers(0, 3 * kGranule));
  EXPECT_FALSE(map_.covers(3 * kGranule - 1, 2));
  EXPECT_EQ(device_.committed_bytes(), 3 * kGranule);
}

TEST_F(CommitMapTest, SecondCommitAsksTheDeviceForNothing) {
  map_.commit(0, 5 * kGranule, complete_);
  const std::uint64_t calls = device_.call_count(DeviceCall::commit);
  EXPECT_EQ(map_.commit(0, 5 * kGranule, complete_), 0u);
  EXPECT_TRUE(complete_);
  EXPECT_EQ(device_.call_count(DeviceCall::commit), calls);
}

TEST_F(CommitMapTest, CommitFillsHolesAndReportsOnlyWhatIsNew) {
  map_.commit(60 * kGranule, 10 * kGranule, complete_);
  map_.commit(128 * kGranule, kGranule, complete_);
  EXPECT_EQ(map_.commit(0, kGranules * kGranule, complete_), (kGranules - 11) * kGranule);
  EXPECT_TRUE(map_.covers(0, kGranules * kGranule));
  EXPECT_EQ(map_.committed_bytes(), kGranules * kGranule);
  EXPECT_EQ(device_.call_count(DeviceCall::commit), 5u);
}

TEST_F(CommitMapTest, FailureOnTheWayKeepsWhatWasCommittedBefore) {
  map_.commit(10 * kGranule, kGranule, complete_);
  device_.fail(DeviceCall::commit, 1);
  EXPECT_EQ(map_.commit(0, 20 * kGranule, complete_), 10 * kGranule);
  EXPECT_FALSE(complete_);
  EXPECT_TRUE(map_.covers(0, 11 * kGranule));
  EXPECT_FALSE(map_.covers(11 * kGranule, 1));
  EXPECT_EQ(map_.committed_bytes(), device_.committed_bytes());
  device_.recover();
  EXPECT_EQ(map_.commit(0, 20 * kGranule, complete_), 9 * kGranule);
  EXPECT_TRUE(complete_);
}

TEST_F(CommitMapTest, DecommitGivesBackOnlyWholeGranulesInside) {
  map_.commit(0, 10 * kGranule, complete_);
  EXPECT_EQ(map_.decommit_inside(kGranule + 1, 3 * kGranule, refused_), 2 * kGranule);
  EXPECT_FALSE(refused_);
  EXPECT_TRUE(map_.covers(0, 2 * kGranule));
  EXPECT_FALSE(map_.covers(2 * kGranule, 1));
  EXPECT_FALSE(map_.covers(4 * kGranule - 1, 1));
  EXPECT_TRUE(map_.covers(4 * kGranule, 6 * kGranule));
  EXPECT_EQ(map_.committed_bytes(), 8 * kGranule);
  EXPECT_EQ(device_.committed_bytes(), 8 * kGranule);
}

TEST_F(CommitMapTest, DecommitOfUncommittedRangesAsksTheDeviceForNothing) {
  EXPECT_EQ(map_.decommit_inside(0, kGranules * kGranule, refused_), 0u);
  EXPECT_EQ(map_.decommit_inside(1, kGranule, refused_), 0u);
  EXPECT_EQ(device_.call_count(DeviceCall::decommit), 0u);
  EXPECT_FALSE(refused_);
}

TEST_F(CommitMapTest, RefusedDecommitIsReportedAndChangesNothing) {
  map_.commit(0, 4 * kGranule, complete_);
  device_.fail(DeviceCall::decommit);
  EXPECT_EQ(map_.decommit_inside(0, 4 * kGranule, refused_), 0u);
  EXPECT_TRUE(refused_);
  EXPECT_TRUE(map_.covers(0, 4 * kGranule));
}

TEST_F(CommitMapTest, ManyThreadsCommitAndDecommitTheirOwnRanges) {
  constexpr std::size_t kThreads = 4;
  std::array<std::uint64_t, kThreads> wrong{};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i, &wrong] {
      const std::uint64_t bytes = 50 * kGranule;  // neighbours share words of the bitmap
      const std::uint64_t offset = i * bytes;
      for (int round = 0; round < 50; ++round) {
        bool complete = false;
        bool refused = false;
        wrong[i] += map_.commit(offset, bytes, complete) == bytes && complete ? 0 : 1;
        wrong[i] += map_.covers(offset, bytes) ? 0 : 1;
        wrong[i] += map_.decommit_inside(offset, bytes, refused) == bytes && !refused ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, (std::array<std::uint64_t, kThreads>{}));
  EXPECT_EQ(map_.committed_bytes(), 0u);
  EXPECT_EQ(device_.committed_bytes(), 0u);
}

TEST(CommitMap, LastGranuleIsCutOffByTheCapacity) {
  SimulatedDevice device(kGiB, kGranule);
  const std::uint64_t capacity = 2 * kGranule + 5 * kUnitBytes;
  CommitMap map(device, device.reserve(capacity), capacity);
  bool complete = false;
  bool refused = false;
  EXPECT_EQ(map.commit(2 * kGranule, kUnitBytes, complete), 5 * kUnitBytes);
  EXPECT_EQ(map.commit(0, capacity, complete), 2 * kGranule);
  EXPECT_EQ(map.committed_bytes(), capacity);
  EXPECT_EQ(map.decommit_inside(2 * kGranule + 1, 5 * kUnitBytes - 1, refused), 0u);
  EXPECT_EQ(map.decommit_inside(2 * kGranule, 5 * kUnitBytes, refused), 5 * kUnitBytes);
  EXPECT_EQ(map.committed_bytes(), 2 * kGranule);
  EXPECT_EQ(device.committed_bytes(), 2 * kGranule);
}

TEST(CommitMap, WhatAFailingCommitLeftBehindIsGivenBack) {
  testing::HookedDevice device(kMiB);
  CommitMap map(device, device.reserve(2 * kMiB), 2 * kMiB);
  bool complete = true;
  EXPECT_EQ(map.commit(0, 2 * kMiB, complete), 0u);
  EXPECT_FALSE(complete);
  EXPECT_FALSE(map.covers(0, 1));
  EXPECT_EQ(device.simulated().committed_bytes(), 0u);
}

}  // namespace
}  // namespace tierpool
