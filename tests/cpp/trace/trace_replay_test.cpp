#include "tierpool/trace/trace_replay.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "support/trace_script.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

using testing::make_trace;

PoolConfig one_heap(std::uint64_t heap_size_bytes, OnExhaustion on_exhaustion) {
  PoolConfig config;
  config.heap_size_bytes = heap_size_bytes;
  config.num_heaps = 1;
  config.warmup_bytes = {};
  config.log_exhaustion = false;
  config.on_exhaustion = on_exhaustion;
  return config;
}

/// Three allocations, of which the last stays live and is larger than 1 MiB.
Trace small_trace() {
  return make_trace({{'a', 0, 4096}, {'a', 1, 0}, {'f', 0, 4096}, {'f', 1, 0}, {'a', 0, 2 * kMiB}});
}

TEST(TraceReplay, ServesEveryAllocationFromAHeapAndReleasesWhatIsLeft) {
  const std::shared_ptr<MemoryPool> owned =
      MemoryPool::create(one_heap(4 * kMiB, OnExhaustion::fallback), std::make_shared<HostDevice>());
  MemoryPool& pool = *owned;
  for (const bool write : {false, true}) {
    EXPECT_GT(replay(small_trace(), pool, write), 0U);
  }
  const PoolStatistics statistics = pool.statistics();
  EXPECT_EQ(statistics.total_allocations, 6U);
  EXPECT_EQ(statistics.total_deallocations, 6U);
  EXPECT_EQ(statistics.fallback_allocations, 0U);
  EXPECT_EQ(statistics.used_bytes, 0U);
}

TEST(TraceReplay, FallsBackWhereTheHeapIsTooSmall) {
  const std::shared_ptr<MemoryPool> owned =
      MemoryPool::create(one_heap(kMiB, OnExhaustion::fallback), std::make_shared<HostDevice>());
  MemoryPool& pool = *owned;
  static_cast<void>(replay(small_trace(), pool, true));
  const PoolStatistics statistics = pool.statistics();
  EXPECT_EQ(statistics.fallback_allocations, 1U);
  EXPECT_EQ(statistics.active_allocations, 0U);
}

TEST(TraceReplay, AFailureLeavesNothingAllocated) {
  const std::shared_ptr<MemoryPool> owned =
      MemoryPool::create(one_heap(kMiB, OnExhaustion::raise), std::make_shared<HostDevice>());
  MemoryPool& pool = *owned;
  const Trace trace = make_trace({{'a', 0, 4096}, {'a', 1, 2 * kMiB}});
  EXPECT_THROW(static_cast<void>(replay(trace, pool, false)), OutOfMemoryError);
  EXPECT_EQ(pool.statistics().active_allocations, 0U);
}

TEST(TraceReplay, RefusesAClosedPool) {
  const std::shared_ptr<MemoryPool> owned =
      MemoryPool::create(one_heap(kMiB, OnExhaustion::fallback), std::make_shared<HostDevice>());
  MemoryPool& pool = *owned;
  pool.close();
  EXPECT_THROW(static_cast<void>(replay(small_trace(), pool, false)), PoolClosedError);
}

TEST(TraceReplay, WritesOnlyWhereTheProcessorCan) {
  const auto simulated = std::make_shared<SimulatedDevice>();
  const std::shared_ptr<MemoryPool> owned = MemoryPool::create(one_heap(4 * kMiB, OnExhaustion::fallback), simulated);
  MemoryPool& pool = *owned;
  EXPECT_THROW(static_cast<void>(replay(small_trace(), pool, true)), ConfigError);
  EXPECT_THROW(static_cast<void>(replay_direct(small_trace(), *simulated, true)), ConfigError);
  static_cast<void>(replay(small_trace(), pool, false));
  EXPECT_EQ(pool.statistics().total_deallocations, 3U);
}

TEST(TraceReplay, DirectAllocationsGoBackToTheDevice) {
  SimulatedDevice device;
  const std::uint64_t free_bytes = device.free_bytes();
  static_cast<void>(replay_direct(small_trace(), device, false));
  EXPECT_EQ(device.free_bytes(), free_bytes);
  HostDevice host;
  EXPECT_GT(replay_direct(small_trace(), host, true), 0U);
}

TEST(TraceReplay, ADeviceWithoutMemoryIsOutOfMemory) {
  SimulatedDevice device;
  const std::uint64_t free_bytes = device.free_bytes();
  const Trace trace = make_trace({{'a', 0, 4096}, {'a', 1, kGiB * kGiB / 2}});
  EXPECT_THROW(static_cast<void>(replay_direct(trace, device, false)), OutOfMemoryError);
  EXPECT_EQ(device.free_bytes(), free_bytes);
}

TEST(TraceReplay, Malloc) {
  EXPECT_GT(replay_malloc(small_trace(), false), 0U);
  EXPECT_GT(replay_malloc(small_trace(), true), 0U);
}

}  // namespace
}  // namespace tierpool
