#include "tierpool/storage/expert_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/cached_storage.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool {
namespace {

using testing::CachedStorage;
using Units = std::vector<UnitId>;

/// A cache that is a list, the oldest first: what an ExpertCache with LRU is compared with.
class CacheModel {
 public:
  explicit CacheModel(std::size_t slot_count) : slot_count_(slot_count) {}

  /// False when it has to be refused; what is there was needed all the same.
  bool acquire(const Units& requests) {
    const std::set<UnitId> needed(requests.begin(), requests.end());
    Units missing;
    for (const UnitId unit : requests) {
      ++(is_present(unit) ? hits : misses);
      if (!is_present(unit) && std::find(missing.begin(), missing.end(), unit) == missing.end()) {
        missing.push_back(unit);
      }
    }
    std::set<UnitId> moved;
    for (const UnitId unit : requests) {
      if (is_present(unit) && moved.insert(unit).second) {
        order_.remove(unit);
        order_.push_back(unit);
      }
    }
    const auto fixed = std::count_if(order_.begin(), order_.end(),
                                     [&](UnitId unit) { return needed.contains(unit) || pins_.contains(unit); });
    if (static_cast<std::size_t>(fixed) + missing.size() > slot_count_) {
      return false;
    }
    while (order_.size() + missing.size() > slot_count_) {
      order_.erase(std::find_if(order_.begin(), order_.end(),
                                [&](UnitId unit) { return !needed.contains(unit) && !pins_.contains(unit); }));
      ++evictions;
    }
    order_.insert(order_.end(), missing.begin(), missing.end());
    pins_.insert(needed.begin(), needed.end());
    return true;
  }
  void release(const Units& requests) {
    for (const UnitId unit : std::set<UnitId>(requests.begin(), requests.end())) {
      pins_.erase(pins_.find(unit));
    }
  }
  [[nodiscard]] bool is_present(UnitId unit) const {
    return std::find(order_.begin(), order_.end(), unit) != order_.end();
  }

  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;

 private:
  const std::size_t slot_count_;
  std::list<UnitId> order_;
  std::multiset<UnitId> pins_;
};

TEST(ExpertCache, HoldsCountsAndEvictsAsTheModelDoes) {
  constexpr std::uint32_t kUnits = 30;
  constexpr std::uint32_t kSlots = 9;
  CachedStorage storage(kUnits, kSlots);
  CacheModel model(kSlots);
  std::mt19937 random(2);
  std::deque<std::pair<Units, ExpertCache::Lease>> held;
  std::uint64_t refused = 0;
  for (int step = 0; step < 3000; ++step) {
    while (held.size() > random() % 3) {
      model.release(held.front().first);
      held.pop_front();
    }
    Units requests(random() % 7);
    for (UnitId& unit : requests) {
      unit = static_cast<UnitId>(std::min(random() % kUnits, random() % kUnits));
    }
    const bool expected = model.acquire(requests);
    try {
      held.emplace_back(requests, storage.cache.acquire(requests));
      ASSERT_TRUE(expected) << step;
      EXPECT_EQ(held.back().second.unit_count(), std::set<UnitId>(requests.begin(), requests.end()).size());
    } catch (const BudgetError&) {
      ASSERT_FALSE(expected) << step;
      ++refused;
    }
    for (const auto& [units, lease] : held) {
      ASSERT_TRUE(storage.shows(units)) << step;
    }
    for (UnitId unit = 0; unit < kUnits; ++unit) {
      ASSERT_EQ(storage.binding.shows(unit), model.is_present(unit)) << "unit " << unit << " in step " << step;
    }
    const CacheStatistics statistics = storage.cache.statistics();
    ASSERT_EQ(statistics.hits, model.hits);
    ASSERT_EQ(statistics.misses, model.misses);
    ASSERT_EQ(statistics.evictions, model.evictions);
    ASSERT_EQ(statistics.requests, model.hits + model.misses);
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(model.evictions, 1000u);
  const CacheStatistics statistics = storage.cache.statistics();
  const std::uint64_t unit_bytes = 3 * storage.page;
  EXPECT_EQ(statistics.requested_bytes, statistics.requests * unit_bytes);
  EXPECT_EQ(statistics.reused_bytes, statistics.hits * unit_bytes);
  EXPECT_EQ(statistics.read_bytes, statistics.loads * unit_bytes);
  EXPECT_LE(statistics.loads, statistics.misses);  // a unit asked for several times is read once
  std::uint64_t hits = 0;
  for (const UnitRequests& requests : storage.cache.unit_requests()) {
    hits += requests.hits;
  }
  EXPECT_EQ(hits, statistics.hits);
}

TEST(ExpertCache, EachRequestCountsOnceAndBeforeTheLoad) {
  CachedStorage storage(4, 4);
  storage.use({1, 2, 1, 1});
  EXPECT_EQ(storage.cache.statistics().misses, 4u);
  EXPECT_EQ(storage.cache.statistics().loads, 2u);
  storage.use({1, 3, 1});
  EXPECT_EQ(storage.cache.statistics().hits, 2u);
  EXPECT_EQ(storage.cache.statistics().misses, 5u);
  EXPECT_EQ(storage.cache.unit_requests()[1].hits, 2u);
  EXPECT_EQ(storage.cache.unit_requests()[1].misses, 3u);
  storage.use({});
  EXPECT_EQ(storage.cache.statistics().requests, 7u);
}

// Slots for exactly what is needed: every load of a call could push out another unit of the same call.
TEST(ExpertCache, NothingThatACallNeedsIsEvictedByIt) {
  CachedStorage storage(8, 4);
  storage.use({0, 1, 2, 3});
  const ExpertCache::Lease lease = storage.cache.acquire(Units{4, 0, 5, 6});
  EXPECT_TRUE(storage.shows({4, 0, 5, 6}));
  EXPECT_EQ(storage.cache.statistics().hits, 1u);
}

TEST(ExpertCache, MoreThanFitsIsRefusedWithNothingHeld) {
  CachedStorage storage(8, 4);
  ExpertCache::Lease lease = storage.cache.acquire(Units{0, 1});
  try {
    storage.use({2, 3, 1, 4});
    ADD_FAILURE() << "held five units in four slots";
  } catch (const BudgetError& error) {
    EXPECT_STREQ(error.what(),
                 "4 units are needed at once, but of the 4 slots only 2 can take one of the 3 that are missing: use "
                 "more slots, or smaller batches");
  }
  EXPECT_TRUE(storage.shows({0, 1}));
  lease = ExpertCache::Lease();
  storage.use({2, 3, 1, 4});
  EXPECT_TRUE(storage.shows({2, 3, 1, 4}));
}

TEST(ExpertCache, AUnitIsShownOnlyWhenAllOfItArrived) {
  CachedStorage storage(4, 2, 1);
  storage.source->hold_from(1);
  std::thread user([&] { storage.use({0}); });
  storage.source->wait_for_calls(2);  // the first of the two pieces is there
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  storage.source->let_go();
  user.join();
  EXPECT_TRUE(storage.shows({0}));
}

TEST(ExpertCache, AnEvictedUnitIsHiddenBeforeItsSlotIsFilled) {
  CachedStorage storage(4, 1, 1);
  storage.use({0});
  storage.source->hold_from(storage.source->calls().size());
  std::thread user([&] { storage.use({1}); });
  storage.source->wait_for_calls(3);
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  storage.source->let_go();
  user.join();
}

TEST(ExpertCache, TwoCallersOfOneUnitShareOneRead) {
  CachedStorage storage(4, 2);
  storage.source->hold_from(0);
  std::vector<std::thread> users;
  for (int i = 0; i < 3; ++i) {
    users.emplace_back([&] {
      const ExpertCache::Lease lease = storage.cache.acquire(Units{2});
      EXPECT_TRUE(storage.shows({2}));
    });
  }
  while (storage.reader.statistics().requests < 3) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  for (std::thread& user : users) {
    user.join();
  }
  EXPECT_EQ(storage.source->calls().size(), 2u);  // the pieces of one unit
  EXPECT_EQ(storage.reader.statistics().joined, 2u);
  EXPECT_EQ(storage.cache.statistics().misses, 3u);
}

/// Counts what it is told.
class CountingPolicy final : public EvictionPolicy {
 public:
  explicit CountingPolicy(std::vector<int>& requests) : requests_(requests) {}
  void requested(UnitId unit) noexcept override {
    ++requests_[unit];
    lru_.requested(unit);
  }
  void prefetched(UnitId unit) noexcept override { lru_.prefetched(unit); }
  void removed(UnitId unit) noexcept override { lru_.removed(unit); }
  [[nodiscard]] std::optional<UnitId> victim(const std::function<bool(UnitId)>& may_go) const override {
    return lru_.victim(may_go);
  }

 private:
  std::vector<int>& requests_;
  LrfuPolicy lru_{8, 0};
};

TEST(ExpertCache, ThePolicyIsToldOnceOfEachUnitOfACall) {
  std::vector<int> requests(8);
  CachedStorage storage(8, 4, 2, std::make_unique<CountingPolicy>(requests));
  storage.use({0, 1, 0});
  storage.cache.preload(Units{2});
  storage.use({1, 2, 3, 3});
  storage.use({5, 4, 1});
  EXPECT_EQ(requests, (std::vector<int>{1, 3, 1, 1, 1, 1, 0, 0}));
}

/// Names a unit that may not go.
class BadPolicy final : public EvictionPolicy {
 public:
  explicit BadPolicy(std::optional<UnitId> victim) : victim_(victim) {}
  void requested(UnitId) noexcept override {}
  void prefetched(UnitId) noexcept override {}
  void removed(UnitId) noexcept override {}
  [[nodiscard]] std::optional<UnitId> victim(const std::function<bool(UnitId)>&) const override { return victim_; }

 private:
  const std::optional<UnitId> victim_;
};

TEST(ExpertCache, NoPolicyCanEvictWhatIsNeeded) {
  for (const std::optional<UnitId> victim : {std::optional<UnitId>{0}, std::optional<UnitId>{}}) {
    CachedStorage storage(4, 2, 1, std::make_unique<BadPolicy>(victim));
    const ExpertCache::Lease lease = storage.cache.acquire(Units{0});
    storage.use({1});
    EXPECT_THROW(storage.use({2}), Error);
    EXPECT_TRUE(storage.shows({0, 1}));
  }
}

TEST(ExpertCache, StallIsTheTimeThatReadsTook) {
  CachedStorage storage(4, 4, 1);
  storage.source->set_delay(500);
  storage.use({0, 1});  // four pieces, one behind the other
  EXPECT_LE(storage.cache.statistics().stall_ns, 2000u);
  const std::uint64_t stall_ns = storage.cache.statistics().stall_ns;
  storage.use({1, 0});
  EXPECT_EQ(storage.cache.statistics().stall_ns, stall_ns);
  storage.source->hold_from(storage.source->calls().size());
  std::thread user([&] { storage.use({2}); });
  storage.source->wait_for_calls(5);
  while (storage.cache.statistics().loads < 3) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  user.join();
  EXPECT_EQ(storage.cache.statistics().stall_ns, stall_ns + 1000);
}

TEST(ExpertCache, RefusesUnknownUnitsUncounted) {
  CachedStorage storage(4, 2);
  EXPECT_THROW(storage.use({0, 4}), std::out_of_range);
  EXPECT_THROW(storage.cache.prefetch(Units{4}), std::out_of_range);
  EXPECT_EQ(storage.cache.statistics().requests, 0u);
  EXPECT_EQ(storage.slots.free_count(), 2u);
}

}  // namespace
}  // namespace tierpool
