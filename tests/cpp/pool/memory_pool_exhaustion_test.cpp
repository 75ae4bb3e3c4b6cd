// When no heap can serve: fallback, refusal, limits, and what is logged about it.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <thread>
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

void raise(PoolConfig& config) { config.on_exhaustion = OnExhaustion::raise; }

class MemoryPoolExhaustionTest : public testing::PoolTest {};

TEST_F(MemoryPoolExhaustionTest, WhoTriesWaitsForNoStream) {
  MemoryPool& pool = build(kMiB, 1);
  SimulatedStreams& streams = device_->simulated_streams();
  const StreamHandle stream = streams.create_stream();
  const Allocation allocation = pool.allocate(kMiB);
  streams.enqueue(stream, [] {});
  ASSERT_TRUE(pool.release(allocation, stream));
  streams.fail(StreamCall::wait_event);  // so that it cannot be put behind that stream's work either
  EXPECT_FALSE(pool.try_allocate(kMiB));
  streams.recover();
  EXPECT_EQ(streams.call_count(StreamCall::synchronize), 0u);
  ASSERT_TRUE(streams.advance(stream));
  keep(*pool.try_allocate(kMiB));
}

TEST_F(MemoryPoolExhaustionTest, FallbackIsServedByTheDeviceAndGivenBackAtRelease) {
  MemoryPool& pool = build(kMiB, 1);
  const Allocation allocation = pool.allocate(2 * kMiB);
  EXPECT_TRUE(allocation.is_fallback());
  EXPECT_EQ(device_->direct_bytes(), 2 * kMiB);
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.fallback_allocations, 1u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  EXPECT_EQ(now.fallback_used_bytes, 2 * kMiB);
  EXPECT_EQ(now.used_bytes, 0u);
  EXPECT_EQ(now.hit_rate(), 0.0);
  EXPECT_EQ(now.largest_allocation_bytes, 2 * kMiB);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(allocation));
  EXPECT_FALSE(pool.release(allocation));
  EXPECT_EQ(device_->direct_bytes(), 0u);
  now = pool.statistics();
  EXPECT_EQ(now.total_deallocations, 1u);
  EXPECT_EQ(now.fallback_used_bytes, 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolExhaustionTest, PeakIsOfHeapsAndFallbacksAtOneMoment) {
  MemoryPool& pool = build(kMiB, 1);
  const Allocation inside = pool.allocate(kMiB);
  const Allocation outside = pool.allocate(2 * kMiB);
  EXPECT_TRUE(pool.release(inside));
  EXPECT_TRUE(pool.release(outside));
  const Allocation larger = pool.allocate(5 * kMiB / 2);
  EXPECT_EQ(pool.statistics().peak_taken_bytes, 3 * kMiB);
  EXPECT_EQ(pool.statistics().peak_used_bytes, kMiB);
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().peak_taken_bytes, 5 * kMiB / 2);
  EXPECT_TRUE(pool.release(larger));
  pool.reset_statistics();
  EXPECT_EQ(pool.statistics().peak_taken_bytes, 0u);
}

TEST_F(MemoryPoolExhaustionTest, HeapsServeAgainAfterAFallback) {
  MemoryPool& pool = build(kMiB, 1);
  const Allocation all = pool.allocate(kMiB);
  const Allocation fallback = pool.allocate(1000);
  EXPECT_TRUE(fallback.is_fallback());
  EXPECT_TRUE(pool.release(all));
  EXPECT_FALSE(keep(pool.allocate(1000)).is_fallback());
  EXPECT_TRUE(pool.release(fallback));
}

TEST_F(MemoryPoolExhaustionTest, RaiseThrowsWithEverythingNeededToReact) {
  MemoryPool& pool = build(kMiB, 2, raise);
  const Allocation taken = pool.allocate(512 * kKiB);
  try {
    static_cast<void>(pool.allocate(3 * kMiB / 2));
    FAIL() << "served";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.details().requested_bytes, 3 * kMiB / 2);
    EXPECT_EQ(error.details().largest_free_bytes, kMiB);
    EXPECT_EQ(error.details().free_bytes, 3 * kMiB / 2);
    EXPECT_DOUBLE_EQ(error.details().fragmentation, 0.0);
    const std::string message = error.what();
    for (const char* part : {"1572864 bytes", "1.5MB", "largest free block 1MB", "free 1.5MB", "fragmentation 0.0%",
                             "heap_size_mb", "on_exhaustion='fallback'"}) {
      EXPECT_NE(message.find(part), std::string::npos) << part << " is missing in: " << message;
    }
  }
  EXPECT_EQ(pool.statistics().exhaustion_events, 1u);
  EXPECT_EQ(pool.statistics().total_allocations, 1u);
  EXPECT_EQ(device_->call_count(DeviceCall::allocate_direct), 0u);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(taken));
}

TEST_F(MemoryPoolExhaustionTest, FailingFallbackThrowsAndIsOneExhaustion) {
  MemoryPool& pool = build(kMiB, 1);
  device_->fail(DeviceCall::allocate_direct);
  const std::string message = message_of<OutOfMemoryError>([&] { static_cast<void>(pool.allocate(2 * kMiB)); });
  EXPECT_NE(message.find("device 'simulated'"), std::string::npos) << message;
  EXPECT_EQ(pool.statistics().exhaustion_events, 1u);
  EXPECT_EQ(pool.statistics().total_allocations, 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolExhaustionTest, ImpossibleSizesAreRefusedAndThePoolStaysUsable) {
  for (const bool raises : {false, true}) {
    MemoryPool& pool = build(kMiB, 2, [raises](PoolConfig& config) {
      config.on_exhaustion = raises ? OnExhaustion::raise : OnExhaustion::fallback;
    });
    for (const std::uint64_t bytes : {2 * kGiB, std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max() - 255,
                                      std::numeric_limits<std::uint64_t>::max()}) {
      EXPECT_THROW(static_cast<void>(pool.allocate(bytes)), OutOfMemoryError) << bytes;
      EXPECT_EQ(pool.try_allocate(bytes), std::nullopt) << bytes;
      EXPECT_THROW(static_cast<void>(pool.allocate_batch(std::array{std::uint64_t{1}, bytes})), OutOfMemoryError);
    }
    EXPECT_TRUE(pool.release(pool.allocate(kMiB)));
    expect_identities(pool);
  }
}

TEST_F(MemoryPoolExhaustionTest, TryAllocateUsesHeapsOnly) {
  const CapturedLog log;
  for (const OnExhaustion choice : {OnExhaustion::fallback, OnExhaustion::raise}) {
    MemoryPool& pool = build(kMiB, 1, [choice](PoolConfig& config) {
      config.on_exhaustion = choice;
      config.log_exhaustion = true;
    });
    const std::optional<Allocation> served = pool.try_allocate(kMiB);
    ASSERT_TRUE(served);
    EXPECT_EQ(pool.try_allocate(1), std::nullopt);
    EXPECT_EQ(pool.statistics().exhaustion_events, 1u);
    EXPECT_EQ(pool.statistics().total_allocations, 1u);
    EXPECT_EQ(pool.statistics().fallback_allocations, 0u);
    EXPECT_TRUE(pool.release(*served));
  }
  EXPECT_TRUE(log.records().empty());
}

TEST_F(MemoryPoolExhaustionTest, LimitHoldsOverHeapsAndFallbacksTogether) {
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.max_bytes = 2 * kMiB; });
  const Allocation in_heap = pool.allocate(kMiB);
  const Allocation outside = pool.allocate(kMiB - 256);
  EXPECT_EQ(pool.statistics().exhaustion_events, 1u);
  const Allocation last = pool.allocate(1);
  const std::string message = message_of<OutOfMemoryError>([&] { static_cast<void>(pool.allocate(1)); });
  EXPECT_NE(message.find("2MB of max_bytes 2MB"), std::string::npos) << message;
  EXPECT_EQ(pool.try_allocate(0), std::nullopt);
  EXPECT_EQ(pool.statistics().total_allocations, 3u);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(outside));
  const Allocation again = pool.allocate(kMiB - 256);
  EXPECT_TRUE(pool.release(again));
  EXPECT_TRUE(pool.release(last));
  EXPECT_TRUE(pool.release(in_heap));
  EXPECT_THROW(static_cast<void>(pool.allocate(std::numeric_limits<std::uint64_t>::max())), OutOfMemoryError);
  EXPECT_TRUE(pool.release(pool.allocate(2 * kMiB)));
}

TEST_F(MemoryPoolExhaustionTest, RefusedRequestsAndBatchesLeaveTheLimitAsItWas) {
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.max_bytes = 4 * kMiB; });
  device_->fail(DeviceCall::allocate_direct);
  EXPECT_THROW(static_cast<void>(pool.allocate(3 * kMiB)), OutOfMemoryError);
  EXPECT_EQ(pool.try_allocate(3 * kMiB), std::nullopt);
  EXPECT_THROW(static_cast<void>(pool.allocate_batch(std::array{kMiB, 2 * kMiB})), OutOfMemoryError);
  Allocation allocation;
  EXPECT_EQ(pool.serve({.bytes = 3 * kMiB, .may_block = false}, allocation), AllocationOutcome::would_block);
  device_->recover();
  EXPECT_TRUE(pool.release(pool.allocate(4 * kMiB)));
}

TEST_F(MemoryPoolExhaustionTest, RequestThatMustNotBlockChangesNothing) {
  MemoryPool& pool = build(kMiB, 2);
  Allocation allocation;
  const AllocationRequest in_heap{.bytes = 1000, .may_block = false};
  const AllocationRequest outside{.bytes = 2 * kMiB, .may_block = false};
  EXPECT_EQ(pool.serve(in_heap, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(pool.serve(outside, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(pool.statistics().exhaustion_events, 0u);
  EXPECT_EQ(device_->committed_bytes() + device_->direct_bytes(), 0u);
  EXPECT_EQ(keep(pool.allocate(1000)).heap_index, 0u) << "the round-robin turn must not have moved on";
  EXPECT_EQ(pool.serve(in_heap, allocation), AllocationOutcome::would_block);
  EXPECT_EQ(keep(pool.allocate(1000)).heap_index, 1u);
  EXPECT_EQ(pool.serve(in_heap, allocation), AllocationOutcome::served);
  keep(allocation);
  EXPECT_EQ(pool.statistics().total_allocations, 3u);
}

TEST_F(MemoryPoolExhaustionTest, PairIsLoggedAtOnceAndThenAtMostOncePerSecond) {
  const CapturedLog log;
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) { config.log_exhaustion = true; });
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(pool.release(pool.allocate(512 * kMiB)));
  }
  const std::vector<LogRecord> pair = {
      {LogLevel::warning, "MetalMemoryPool: Heap exhausted for 512MB allocation, falling back to device allocation"},
      {LogLevel::info, "MetalMemoryPool: Consider increasing heap_size_mb or num_heaps"}};
  // A machine that stalls for a second may see the next one.
  ASSERT_LT(log.records().size(), 50u);
  ASSERT_GE(log.records().size(), 2u);
  EXPECT_EQ((std::vector<LogRecord>{log.records()[0], log.records()[1]}), pair);
  const std::size_t before = log.records().size();
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_TRUE(pool.release(pool.allocate(512 * kMiB)));
  const std::vector<LogRecord> records = log.records();
  ASSERT_EQ(records.size(), before + 3);
  EXPECT_EQ(records[before], pair[0]);
  EXPECT_EQ(records[before + 1], pair[1]);
  EXPECT_EQ(records[before + 2], (LogRecord{LogLevel::warning, "MetalMemoryPool: Fallback allocation count: 51"}));
}

TEST_F(MemoryPoolExhaustionTest, RefusalIsLoggedWithoutAFallback) {
  const CapturedLog log;
  MemoryPool& pool = build(kMiB, 1, [](PoolConfig& config) {
    raise(config);
    config.log_exhaustion = true;
  });
  EXPECT_THROW(static_cast<void>(pool.allocate(3 * kMiB / 2 + kMiB)), OutOfMemoryError);
  ASSERT_EQ(log.records().size(), 2u);
  EXPECT_EQ(log.records()[0].message, "MetalMemoryPool: Heap exhausted for 2.5MB allocation");
}

TEST_F(MemoryPoolExhaustionTest, NothingIsLoggedWhenSwitchedOff) {
  const CapturedLog log;
  MemoryPool& pool = build(kMiB, 1);
  EXPECT_TRUE(pool.release(pool.allocate(2 * kMiB)));
  EXPECT_TRUE(log.records().empty());
}

TEST_F(MemoryPoolExhaustionTest, WhatIsHeldOfTheDeviceIsCountedInHeapsAndOutside) {
  MemoryPool& pool = build(4 * kGranule, 1);
  const Allocation first = pool.allocate(2 * kGranule);
  const Allocation outside = pool.allocate(5 * kGranule);
  EXPECT_EQ(pool.statistics().reserved_bytes, 7 * kGranule);
  EXPECT_EQ(pool.statistics().device_allocations, 2u);
  EXPECT_TRUE(pool.release(outside));
  EXPECT_TRUE(pool.release(first));
  EXPECT_EQ(pool.statistics().reserved_bytes, 2 * kGranule);
  EXPECT_EQ(pool.trim(), 2 * kGranule);
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.reserved_bytes, 0u);
  EXPECT_EQ(now.peak_reserved_bytes, 7 * kGranule);
  EXPECT_EQ(now.device_frees, 2u);
  pool.reset_statistics();
  now = pool.statistics();
  EXPECT_EQ(now.peak_reserved_bytes, 0u);
  EXPECT_EQ(now.device_allocations + now.device_frees, 0u);
  expect_identities(pool);
}

TEST_F(MemoryPoolExhaustionTest, DisabledPoolServesEverythingAsACountedFallback) {
  const CapturedLog log;
  MemoryPool& pool = build(kMiB, 4, [](PoolConfig& config) {
    raise(config);
    config.enabled = false;
    config.log_exhaustion = true;
    config.warmup_bytes = {kMiB};
  });
  const Allocation allocation = pool.allocate(1000);
  EXPECT_TRUE(allocation.is_fallback());
  PoolStatistics now = pool.statistics();
  EXPECT_EQ(now.total_heaps, 0u);
  EXPECT_EQ(now.capacity_bytes, 0u);
  EXPECT_EQ(now.utilization(), 0.0);
  EXPECT_EQ(now.fallback_allocations, 1u);
  EXPECT_EQ(now.exhaustion_events, 1u);
  EXPECT_EQ(now.hit_rate(), 0.0);
  expect_identities(pool);
  EXPECT_EQ(pool.try_allocate(1000), std::nullopt);
  EXPECT_EQ(pool.trim(), 0u);
  EXPECT_EQ(pool.warm_up(std::array{std::uint64_t{1000}}).committed_bytes, 0u);
  EXPECT_TRUE(pool.is_whole_heap(keep(pool.acquire_heap())));
  EXPECT_TRUE(pool.release(allocation));
  EXPECT_TRUE(log.records().empty());
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

}  // namespace
}  // namespace tierpool
