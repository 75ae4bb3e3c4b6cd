// Warm-up, trim, and the commits between them.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/captured_log.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::CapturedLog;
using testing::expect_identities;
using testing::kGranule;
using testing::LogRecord;
using testing::message_of;

class MemoryPoolWarmUpTest : public testing::PoolTest {
 protected:
  MemoryPool& build_warm(std::uint64_t heap_size_bytes, std::uint32_t num_heaps,
                         const std::vector<std::uint64_t>& sizes_bytes) {
    return build(heap_size_bytes, num_heaps, [&sizes_bytes](PoolConfig& config) { config.warmup_bytes = sizes_bytes; });
  }
};

TEST_F(MemoryPoolWarmUpTest, SizesThatFitTogetherAreWarmAtTheLowEndOfEveryHeap) {
  MemoryPool& pool = build_warm(kMiB, 3, {2 * kGranule, 3 * kGranule});
  EXPECT_EQ(device_->committed_bytes(), 3 * 5 * kGranule);
  for (const HeapStatistics& heap : pool.heaps()) {
    EXPECT_EQ(heap.committed_bytes, 5 * kGranule);
  }
  const std::uint64_t commits = device_->call_count(DeviceCall::commit);
  for (int i = 0; i < 3; ++i) {
    keep(pool.allocate(5 * kGranule));
  }
  EXPECT_EQ(device_->call_count(DeviceCall::commit), commits) << "the first allocations find warm memory";
}

TEST_F(MemoryPoolWarmUpTest, SizesThatDoNotFitTogetherWarmWhatFitsOrTheLargest) {
  build_warm(16 * kGranule, 1, {10 * kGranule, 8 * kGranule, 5 * kGranule});
  EXPECT_EQ(device_->committed_bytes(), 15 * kGranule);
  build_warm(16 * kGranule, 1, {2 * kGranule, 15 * kGranule});
  EXPECT_EQ(device_->committed_bytes(), 15 * kGranule);
  build_warm(16 * kGranule, 1, {16 * kGranule});
  EXPECT_EQ(device_->committed_bytes(), 16 * kGranule);
}

TEST_F(MemoryPoolWarmUpTest, CountsInNoAllocationStatistic) {
  MemoryPool& pool = build_warm(kMiB, 2, {kMiB});
  const PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_allocations, 0u);
  EXPECT_EQ(now.total_deallocations, 0u);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(now.peak_used_bytes, 0u);
  EXPECT_EQ(now.largest_allocation_bytes, 0u);
  EXPECT_EQ(now.committed_bytes, 2 * kMiB);
  expect_identities(pool);
}

TEST_F(MemoryPoolWarmUpTest, SizeAboveTheHeapIsSkippedWithOneLineAtTheLevelOfItsOrigin) {
  for (const auto& [is_default, level] : {std::pair{true, LogLevel::info}, std::pair{false, LogLevel::warning}}) {
    const CapturedLog log;
    build(kMiB, 3, [is_default = is_default](PoolConfig& config) {
      config.warmup_bytes = {3 * kMiB / 2, kGranule};
      config.warmup_is_default = is_default;
    });
    EXPECT_EQ(log.records(),
              (std::vector<LogRecord>{{level, "MetalMemoryPool: Warmup size 1.5MB exceeds heap size 1MB, skipped"}}));
    EXPECT_EQ(device_->committed_bytes(), 3 * kGranule);
  }
}

TEST_F(MemoryPoolWarmUpTest, SecondWarmUpCommitsOnlyWhatIsMissingAndLeavesLiveBlocksAlone) {
  MemoryPool& pool = build_warm(kMiB, 2, {2 * kGranule});
  const Allocation live = keep(pool.allocate(3 * kGranule));
  const WarmupReport report = pool.warm_up(std::array{kMiB});
  EXPECT_EQ(report.warm_bytes, 2 * kMiB);
  EXPECT_EQ(report.committed_bytes, 2 * kMiB - 5 * kGranule);
  EXPECT_GE(report.milliseconds, 0.0);
  EXPECT_EQ(pool.warm_up(std::array{kMiB}).committed_bytes, 0u);
  EXPECT_EQ(pool.statistics().active_allocations, 1u);
  EXPECT_TRUE(pool.release(live));
  expect_identities(pool);
}

TEST_F(MemoryPoolWarmUpTest, ProgressRunsUpToTheTotalAndMayThrow) {
  MemoryPool& pool = build(kMiB, 3);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> steps;
  pool.warm_up(std::array{4 * kGranule}, [&](std::uint64_t done, std::uint64_t total) {
    steps.emplace_back(done, total);
    static_cast<void>(pool.statistics());  // would hang if a lock were held
  });
  EXPECT_EQ(steps, (std::vector<std::pair<std::uint64_t, std::uint64_t>>{
                       {4 * kGranule, 12 * kGranule}, {8 * kGranule, 12 * kGranule}, {12 * kGranule, 12 * kGranule}}));
  EXPECT_THROW(pool.warm_up(std::array{kMiB}, [](std::uint64_t, std::uint64_t) { throw std::range_error("stop"); }),
               std::range_error);
  EXPECT_TRUE(pool.release(pool.allocate(kMiB)));
}

TEST_F(MemoryPoolWarmUpTest, NoMemoryForWarmUpIsAnErrorAndThePoolStaysUsable) {
  MemoryPool& pool = build(kMiB, 2);
  device_->fail(DeviceCall::commit, 1);
  EXPECT_THROW(pool.warm_up(std::array{kMiB}), OutOfMemoryError);
  EXPECT_EQ(device_->committed_bytes(), kMiB);
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  device_->recover();
  EXPECT_EQ(pool.warm_up(std::array{kMiB}).committed_bytes, kMiB);
}

TEST_F(MemoryPoolWarmUpTest, PoolThatCannotBeWarmedUpIsNotBuilt) {
  const CapturedLog log;
  device_->fail(DeviceCall::commit, 1);
  const std::string message = message_of<InitializationError>([&] { build_warm(kMiB, 2, {kMiB}); });
  EXPECT_EQ(message.find("Failed to initialize MetalMemoryPool: "), 0u) << message;
  EXPECT_NE(message.find("warmup_sizes"), std::string::npos) << message;
  EXPECT_EQ(device_->reserved_bytes() + device_->committed_bytes(), 0u);
  device_->recover();
}

TEST_F(MemoryPoolWarmUpTest, TrimGivesBackWhatIsFreeAndTheNextAllocationCommitsAgain) {
  MemoryPool& pool = build_warm(kMiB, 2, {kMiB});
  const Allocation live = keep(pool.allocate(1000));
  EXPECT_EQ(pool.trim(), 2 * kMiB - kGranule);
  EXPECT_EQ(device_->committed_bytes(), kGranule);
  EXPECT_EQ(pool.statistics().committed_bytes, kGranule);
  EXPECT_EQ(pool.trim(), 0u);
  const Allocation again = pool.allocate(4 * kGranule);
  EXPECT_FALSE(again.is_fallback());
  EXPECT_EQ(device_->committed_bytes(), 5 * kGranule);
  EXPECT_TRUE(pool.release(again));
  EXPECT_TRUE(pool.release(live));
  EXPECT_EQ(pool.statistics().peak_used_bytes, 4 * kGranule + 1024);
  expect_identities(pool);
}

TEST_F(MemoryPoolWarmUpTest, MemoryTheDeviceKeepsAtATrimIsReportedAndStaysUsable) {
  const CapturedLog log;
  MemoryPool& pool = build_warm(kMiB, 1, {kMiB});
  device_->fail(DeviceCall::decommit);
  EXPECT_EQ(pool.trim(), 0u);
  EXPECT_EQ(pool.statistics().committed_bytes, kMiB);
  ASSERT_EQ(log.records().size(), 1u);
  EXPECT_EQ(log.records()[0].level, LogLevel::warning);
  EXPECT_EQ(log.records()[0].message.find("MetalMemoryPool: Device 'simulated' kept"), 0u) << log.records()[0].message;
  EXPECT_FALSE(keep(pool.allocate(kMiB)).is_fallback());
}

TEST_F(MemoryPoolWarmUpTest, FailingCommitUndoesTheBlockAndIsOneExhaustion) {
  MemoryPool& pool = build(kMiB, 2);
  device_->fail(DeviceCall::commit);
  const Allocation fallback = keep(pool.allocate(1000));
  EXPECT_TRUE(fallback.is_fallback());
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.exhaustion_events, 1u);
  EXPECT_EQ(now.fallback_allocations, 1u);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(now.peak_used_bytes, 0u);
  EXPECT_EQ(now.largest_free_bytes, kMiB);
  EXPECT_EQ(pool.try_allocate(1000), std::nullopt);
  device_->fail(DeviceCall::allocate_direct);
  EXPECT_THROW(static_cast<void>(pool.allocate(1000)), OutOfMemoryError);
  now = pool.statistics();
  EXPECT_EQ(now.exhaustion_events, 3u);
  EXPECT_EQ(now.total_allocations, 1u);
  expect_identities(pool);
  device_->recover();
  EXPECT_FALSE(keep(pool.allocate(kMiB)).is_fallback());
  EXPECT_FALSE(keep(pool.allocate(kMiB)).is_fallback());
}

TEST_F(MemoryPoolWarmUpTest, OneHeapWithoutMemoryLeavesTheRequestToTheNext) {
  MemoryPool& pool = build(kMiB, 2);
  device_->fail(DeviceCall::commit, 0, 1);
  EXPECT_EQ(keep(pool.allocate(1000)).heap_index, 1u);
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  expect_identities(pool);
}

class MemoryPoolSmallDeviceTest : public testing::PoolTest {
 protected:
  MemoryPoolSmallDeviceTest() : testing::PoolTest(8 * kGranule) {}
};

TEST_F(MemoryPoolSmallDeviceTest, HeapsMayBeLargerTogetherThanTheDeviceUntilTheyAreUsed) {
  MemoryPool& pool = build(8 * kGranule, 3);
  const Allocation first = pool.allocate(8 * kGranule);
  EXPECT_THROW(static_cast<void>(pool.allocate(1000)), OutOfMemoryError);
  EXPECT_EQ(pool.statistics().exhaustion_events, 1u);
  EXPECT_TRUE(pool.release(first));
  EXPECT_EQ(pool.trim(), 8 * kGranule);
  EXPECT_FALSE(keep(pool.allocate(8 * kGranule)).is_fallback());
  expect_identities(pool);
}

}  // namespace
}  // namespace tierpool
