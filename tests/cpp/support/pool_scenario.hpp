#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::testing {

/// One call of everything a pool can do, written so that every call may fail. Whatever fails, the pool has to keep its
/// books: what was served is live until released, what failed has left nothing.
class PoolScenario {
 public:
  /// `fails` is asked with each exception whether it is one that the injected failure may cause.
  /// With magazines, nothing else sees allocations come and go; without them, origins do.
  PoolScenario(std::shared_ptr<Device> device, bool magazines, std::function<bool(const std::exception&)> fails)
      : device_(std::move(device)), magazines_(magazines), fails_(std::move(fails)) {}

  /// Builds the pool, uses it and lets it go. `check` is called with the pool while nothing is in flight.
  void run(const std::function<void(const MemoryPool&)>& check) {
    PoolConfig config = quiet_config(8 * kGranule, 2);
    config.warmup_bytes = {2 * kGranule};
    config.magazines = magazines_;
    config.track_origins = !magazines_;
    config.log_exhaustion = true;
    std::shared_ptr<MemoryPool> pool;
    attempt([&] { pool = MemoryPool::create(config, device_); });
    if (!pool) {
      return;
    }
    live_.reserve(32);
    use(*pool);
    check(*pool);
    attempt([&] { pool->close(); });
    EXPECT_EQ(pool->statistics().active_allocations, live_.size());
    live_.clear();
    check(*pool);
    EXPECT_EQ(pool->statistics().active_allocations, 0u);
  }

 private:
  void use(MemoryPool& pool) {
    const auto keep = [&](const Allocation& allocation) {
      live_.emplace_back(pool, allocation);
      attempt([&] { pool.set_origin(allocation, "a name that is too long for the string to hold it itself"); });
    };
    for (const std::uint64_t bytes : {std::uint64_t{100}, 3 * kGranule, 4 * kGranule, 9 * kGranule, 7 * kGranule}) {
      attempt([&] { keep(pool.allocate(bytes)); });
    }
    EXPECT_EQ(pool.statistics().active_allocations, live_.size());
    attempt([&] {
      for (const Allocation& allocation :
           pool.allocate_batch(std::array{std::uint64_t{300}, kGranule, 9 * kGranule, std::uint64_t{0}})) {
        keep(allocation);
      }
    });
    attempt([&] {
      if (const auto allocation = pool.try_allocate(kGranule)) {
        keep(*allocation);
      }
    });
    EXPECT_EQ(pool.statistics().active_allocations, live_.size());
    if (live_.size() > 2) {
      live_.erase(live_.begin() + 1);
    }
    attempt([&] { pool.trim(); });
    attempt([&] { pool.warm_up(std::array{5 * kGranule}); });
    attempt([&] { keep(pool.allocate(2 * kGranule)); });
    attempt([&] { keep(pool.acquire_heap()); });
    attempt([&] { pool.trim(); });
  }

  void attempt(const std::function<void()>& call) {
    try {
      call();
    } catch (const std::exception& error) {
      EXPECT_TRUE(fails_(error)) << error.what();
    }
  }

  std::shared_ptr<Device> device_;
  const bool magazines_;
  std::function<bool(const std::exception&)> fails_;
  std::vector<Buffer> live_;
};

}  // namespace tierpool::testing
