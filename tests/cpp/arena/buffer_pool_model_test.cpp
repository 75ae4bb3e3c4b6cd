// Random use against a simple model: the live leases and the bytes each of them covers, in maps.

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::FakeEvent;
using testing::SimulatedArena;

struct ModelCase {
  SizeClasses size_classes;
  bool checked;
  std::uint64_t seed;
};

class BufferPoolModel : public ::testing::TestWithParam<ModelCase> {
 protected:
  void SetUp() override {
    BufferPoolConfig config;
    config.size_classes = GetParam().size_classes;
    config.checked = GetParam().checked;
    config.max_bytes = 3 * kMiB;
    config.max_buffers = 400;
    arena_ = std::make_unique<SimulatedArena>(config);
    random_.seed(GetParam().seed);
  }

  std::uint64_t pick(std::uint64_t limit) {
    return std::uniform_int_distribution<std::uint64_t>(0, limit - 1)(random_);
  }
  BufferPool& pool() { return *arena_->pool; }

  void expect_new(const Lease& lease, std::uint64_t bytes, std::uint64_t class_bytes) {
    ASSERT_EQ(lease.requested_bytes, bytes);
    ASSERT_EQ(lease.class_bytes, class_bytes);
    ASSERT_TRUE(serials_.insert(lease.serial).second);
    const auto next = live_.lower_bound(lease.address);
    const std::uint64_t extent = std::max<std::uint64_t>(class_bytes, 1);
    ASSERT_TRUE(next == live_.end() || lease.address + extent <= next->first);
    ASSERT_TRUE(next == live_.begin() || std::prev(next)->first + std::prev(next)->second.class_bytes <= lease.address);
    ASSERT_FALSE(withheld_.contains(lease.address));
    live_.emplace(lease.address, lease);
  }

  std::uint64_t random_size() { return pick(8) == 0 ? pick(3) : pick(std::uint64_t{1} << pick(16)) + 1; }

  void alloc_one() {
    const std::uint64_t bytes = random_size();
    const bool exact = pick(4) == 0;
    try {
      const Lease lease = exact ? pool().alloc_exact(bytes) : pool().alloc(bytes);
      expect_new(lease, bytes, exact ? bytes : class_bytes_for(GetParam().size_classes, bytes));
    } catch (const OutOfMemoryError&) {
      drop_completed();  // the pool waited for every event before it gave up
    }
  }

  void alloc_many() {
    std::vector<std::uint64_t> sizes(pick(40));
    for (std::uint64_t& bytes : sizes) {
      bytes = random_size();
    }
    arena_->device->fail(DeviceCall::allocate_direct, pick(40), pick(2));
    try {
      const std::vector<Lease> leases = testing::alloc_batch(pool(), sizes);
      drop_completed();
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        expect_new(leases[i], sizes[i], class_bytes_for(GetParam().size_classes, sizes[i]));
      }
    } catch (const OutOfMemoryError&) {
      drop_completed();
    }
    arena_->device->recover();
  }

  void release_one() {
    if (live_.empty()) {
      return;
    }
    const auto victim = std::next(live_.begin(), static_cast<std::ptrdiff_t>(pick(live_.size())));
    const Lease lease = victim->second;
    const bool viewed = views_.contains(lease.serial);
    ASSERT_EQ(pool().release(lease),
              viewed && GetParam().checked ? ReleaseOutcome::has_views : ReleaseOutcome::released);
    if (!viewed || !GetParam().checked) {
      live_.erase(victim);
      views_.erase(lease.serial);
      stale_.push_back(lease);
    }
  }

  void use_stale() {
    if (!stale_.empty()) {
      const Lease& lease = stale_[pick(stale_.size())];
      ASSERT_EQ(pool().release(lease), ReleaseOutcome::stale);
      ASSERT_FALSE(pool().add_view(lease));
      pool().remove_view(lease);
    }
  }

  void toggle_view() {
    if (live_.empty()) {
      return;
    }
    const Lease& lease = std::next(live_.begin(), static_cast<std::ptrdiff_t>(pick(live_.size())))->second;
    if (views_.erase(lease.serial) != 0) {
      pool().remove_view(lease);
    } else if (views_.size() < 2) {
      ASSERT_TRUE(pool().add_view(lease));
      views_.insert(lease.serial);
    }
  }

  void reset() {
    const bool refused = GetParam().checked && !views_.empty();
    const bool delayed = pick(3) == 0;
    const auto event = delayed ? std::make_shared<FakeEvent>() : nullptr;
    ASSERT_EQ(pool().reset(event), refused ? ResetOutcome::live_views : ResetOutcome::done);
    if (refused) {
      return;
    }
    for (const auto& [address, lease] : live_) {
      stale_.push_back(lease);
      if (delayed) {
        withheld_.emplace(address, event);
      }
    }
    live_.clear();
    views_.clear();
  }

  /// The pool may use again what waited for an event that has completed, by this test or by the pool's waiting.
  void drop_completed() {
    std::erase_if(withheld_, [](const auto& one) { return one.second->complete.load(); });
  }

  void complete_one() {
    if (!withheld_.empty()) {
      std::next(withheld_.begin(), static_cast<std::ptrdiff_t>(pick(withheld_.size())))->second->complete = true;
      drop_completed();
    }
  }

  void expect_books() {
    const BufferPoolStatistics now = pool().statistics();
    std::uint64_t requested_bytes = 0;
    std::uint64_t class_bytes = 0;
    for (const auto& [address, lease] : live_) {
      requested_bytes += lease.requested_bytes;
      class_bytes += lease.class_bytes;
      ASSERT_EQ(pool().state_of(lease), LeaseState::live);
    }
    ASSERT_EQ(now.in_use_count, live_.size());
    ASSERT_EQ(now.in_use_bytes, class_bytes);
    ASSERT_EQ(now.live_requested_bytes, requested_bytes);
    ASSERT_EQ(now.live_views, views_.size());
    ASSERT_EQ(now.held_count, now.in_use_count + now.free_count + now.quarantined_count);
    ASSERT_EQ(now.held_bytes, now.in_use_bytes + now.free_bytes + now.quarantined_bytes);
    ASSERT_GE(now.high_water_bytes, now.in_use_bytes);
    ASSERT_GE(now.quarantined_count, withheld_.size());
    ASSERT_EQ(now.leases(), serials_.size());
    ASSERT_LE(now.held_bytes, 3 * kMiB);
    ASSERT_LE(now.held_count, 400u);
    ASSERT_EQ(arena_->device->misuse_count(), 0u);
  }

  std::unique_ptr<SimulatedArena> arena_;
  std::mt19937_64 random_;
  std::map<std::uint64_t, Lease> live_;  // by address
  std::map<std::uint64_t, std::shared_ptr<FakeEvent>> withheld_;
  std::set<std::uint64_t> serials_;
  std::set<std::uint64_t> views_;  // serials of the leases with one
  std::vector<Lease> stale_;
};

TEST_P(BufferPoolModel, AgreesAfterEveryStep) {
  for (int step = 0; step < 20000; ++step) {
    const std::uint64_t action = pick(100);
    if (action < 40) {
      alloc_one();
    } else if (action < 45) {
      alloc_many();
    } else if (action < 80) {
      release_one();
    } else if (action < 85) {
      use_stale();
    } else if (action < 92) {
      toggle_view();
    } else if (action < 94) {
      reset();
    } else if (action < 97) {
      complete_one();
    } else {
      static_cast<void>(pool().trim(pick(2) == 0 ? pick(kMiB) : UINT64_MAX));
    }
    drop_completed();
    if (HasFatalFailure()) {
      return;
    }
    if (step % 16 == 0) {
      expect_books();
    }
  }
  views_.clear();
  arena_->pool.reset();
  EXPECT_EQ(arena_->device->direct_bytes(), 0u);
  EXPECT_EQ(arena_->device->misuse_count(), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Random, BufferPoolModel,
    ::testing::Values(ModelCase{SizeClasses::eighths, true, 1}, ModelCase{SizeClasses::eighths, false, 2},
                      ModelCase{SizeClasses::power_of_two, true, 3}, ModelCase{SizeClasses::power_of_two, false, 4},
                      ModelCase{SizeClasses::exact, true, 5}, ModelCase{SizeClasses::exact, false, 6}));

}  // namespace
}  // namespace tierpool
