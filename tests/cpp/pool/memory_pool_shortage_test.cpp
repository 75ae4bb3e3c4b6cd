// The process itself runs out of memory at each allocation in turn: nothing leaks and the counters stay true.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "support/limited_new.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

using testing::allocations_left;
using testing::kGranule;
using testing::kUnlimited;

constexpr std::size_t kMaxLive = 300;

/// Runs `call` with `limit` allocations; whether it threw.
template <typename Call>
[[nodiscard]] bool fails_with(std::int64_t limit, const Call& call) {
  bool failed = false;
  allocations_left = limit;
  try {
    call();
  } catch (const std::bad_alloc&) {
    failed = true;
  } catch (const OutOfMemoryError&) {
    failed = true;
  } catch (const InitializationError&) {
    failed = true;
  }
  allocations_left = kUnlimited;
  return failed;
}

class MemoryPoolShortageTest : public testing::PoolTest, public ::testing::WithParamInterface<bool> {
 protected:
  /// Every call in turn with ever more allocations, until it works without a failure.
  template <typename Call>
  void starve(const Call& call) {
    bool failed = true;
    for (std::int64_t limit = 0; failed && !HasFailure(); ++limit) {
      SCOPED_TRACE(std::to_string(limit) + " allocations");
      failed = fails_with(limit, [&] { call(*pool_); });
      testing::expect_identities(*pool_);
      ASSERT_LT(limit, 1000);
    }
  }
};

TEST_P(MemoryPoolShortageTest, PoolIsBuiltWhollyOrNotAtAll) {
  PoolConfig config = testing::quiet_config(kMiB, 3);
  config.magazines = GetParam();
  bool failed = true;
  std::int64_t limit = 0;
  for (; failed && !HasFailure(); ++limit) {
    SCOPED_TRACE(std::to_string(limit) + " allocations");
    set_log_sink([](LogLevel, std::string_view) {});
    failed = fails_with(limit, [&] { static_cast<void>(MemoryPool::create(config, device_)); });
    set_log_sink(nullptr);
    testing::expect_all_given_back(*device_);
  }
  EXPECT_GT(limit, 10);
}

TEST_P(MemoryPoolShortageTest, EveryCallLeavesThePoolAsItWasWhenItFails) {
  build(16 * kGranule, 2, [](PoolConfig& config) {
    config.placement = Placement::first_fit;
    config.magazines = GetParam();
  });
  std::array<Allocation, kMaxLive> live;
  std::size_t count = 0;
  const auto keep = [&](const Allocation& allocation) { live[count++] = allocation; };
  for (int i = 0; i < 150; ++i) {
    starve([&](MemoryPool& pool) { keep(pool.allocate(1000)); });
  }
  starve([&](MemoryPool& pool) { keep(pool.allocate(20 * kGranule)); });
  starve([&](MemoryPool& pool) {
    for (const Allocation& allocation : pool.allocate_batch(std::array{std::uint64_t{100}, 20 * kGranule, kGranule})) {
      keep(allocation);
    }
  });
  EXPECT_EQ(pool_->statistics().active_allocations, count);
  starve([](MemoryPool& pool) { pool.trim(); });
  starve([](MemoryPool& pool) { pool.warm_up(std::array{10 * kGranule}); });
  starve([](MemoryPool& pool) { static_cast<void>(pool.heaps()); });
  const std::uint64_t given_back = pool_->trim();
  EXPECT_GT(given_back, 0u);
  allocations_left = 0;  // giving back needs no memory
  bool released = true;
  for (std::size_t i = 0; i < count; ++i) {
    released = pool_->release(live[i]) && released;
  }
  allocations_left = kUnlimited;
  EXPECT_TRUE(released);
  EXPECT_EQ(pool_->statistics().active_allocations, 0u);
  testing::expect_identities(*pool_);
}

TEST_P(MemoryPoolShortageTest, TrimThatFailsLeavesRequestsUnblocked) {
  MemoryPool& pool = build(16 * kGranule, 1, [](PoolConfig& config) { config.magazines = GetParam(); });
  EXPECT_TRUE(fails_with(0, [&] { pool.trim(); }));
  Allocation allocation;
  const AllocationOutcome outcome =
      pool.serve({.bytes = 17 * kGranule, .heaps_only = true, .may_block = false}, allocation);
  EXPECT_EQ(outcome, AllocationOutcome::out_of_memory);
  keep(pool.allocate(16 * kGranule));
  EXPECT_EQ(pool.serve({.bytes = 1, .heaps_only = true, .may_block = false}, allocation),
            AllocationOutcome::out_of_memory)
      << "the pool still believes that a trim runs";
}

INSTANTIATE_TEST_SUITE_P(Magazines, MemoryPoolShortageTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

}  // namespace
}  // namespace tierpool
