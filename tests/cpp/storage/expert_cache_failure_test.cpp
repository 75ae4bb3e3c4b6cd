#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "support/cached_storage.hpp"
#include "support/captured_log.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/storage/expert_cache.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool {
namespace {

using testing::CachedStorage;
using testing::FakeSource;
using Units = std::vector<UnitId>;

TEST(ExpertCacheFailure, AFailureAtEveryReadIsRaisedAndForgotten) {
  for (const auto failure :
       {FakeSource::Failure::io_error, FakeSource::Failure::short_read, FakeSource::Failure::changed}) {
    CachedStorage storage(12, 4);
    for (std::uint64_t point = 0; point < 8; ++point) {  // four units of two pieces
      storage.source->fail_at(storage.source->calls().size() + point, failure);
      const Units requests = {static_cast<UnitId>(4 * (point % 3)), static_cast<UnitId>(4 * (point % 3) + 1),
                              static_cast<UnitId>(4 * (point % 3) + 2), static_cast<UnitId>(4 * (point % 3) + 3)};
      const std::uint64_t misses = storage.cache.statistics().misses;
      EXPECT_THROW(storage.use(requests), ReadError) << point;
      storage.source->recover();
      EXPECT_EQ(storage.cache.statistics().misses, misses + 4);
      EXPECT_FALSE(storage.shows(requests));
      storage.use(requests);
      EXPECT_TRUE(storage.shows(requests));
    }
  }
}

TEST(ExpertCacheFailure, ACallAfterAFailureDoesNotMeetTheFailuresBesideIt) {
  CachedStorage storage(4, 3, 1);
  storage.source->fail_at(0, FakeSource::Failure::io_error);
  storage.source->fail_at(1, FakeSource::Failure::io_error);
  storage.source->hold({0, 1});
  std::thread first([&] { EXPECT_THROW(storage.use({1, 2}), ReadError); });
  while (storage.reader.statistics().requests < 2) {
    std::this_thread::yield();  // or the first failure could be over before the other unit is asked for
  }
  storage.source->release(0);
  first.join();
  storage.source->wait_for_calls(2);  // of the other unit
  std::thread user([&] { EXPECT_NO_THROW(storage.use({2})); });
  while (storage.reader.statistics().requests < 3) {
    std::this_thread::yield();
  }
  storage.source->release(1);
  user.join();
  EXPECT_TRUE(storage.shows({2}));
}

TEST(ExpertCacheFailure, ASharedReadThatFailsFailsEveryCaller) {
  CachedStorage storage(4, 2, 1);
  storage.source->hold_from(0);
  storage.source->fail_at(1, FakeSource::Failure::io_error);
  std::vector<std::thread> users;
  for (int i = 0; i < 2; ++i) {
    users.emplace_back([&] { EXPECT_THROW(storage.use({2}), ReadError); });
  }
  while (storage.reader.statistics().requests < 2) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  for (std::thread& user : users) {
    user.join();
  }
  storage.source->recover();
  storage.use({2});
}

TEST(ExpertCacheFailure, WhatCannotBeShownIsNotHeld) {
  CachedStorage storage(8, 2);
  storage.binding.fail_binds(1);
  EXPECT_THROW(storage.use({0, 1}), DeviceError);
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  storage.use({0, 1});
  EXPECT_TRUE(storage.shows({0, 1}));
  EXPECT_EQ(storage.cache.statistics().loads, 2u);  // they had arrived
}

TEST(ExpertCacheFailure, WhatCannotBeHiddenKeepsItsSlot) {
  CachedStorage storage(8, 2);
  storage.use({0, 1});
  storage.binding.fail_unbinds(1);
  EXPECT_THROW(storage.use({2}), DeviceError);
  EXPECT_TRUE(storage.shows({0, 1}));
  storage.use({2});
  EXPECT_TRUE(storage.shows({1, 2}));
}

TEST(ExpertCacheFailure, ASlotThatCannotBeHiddenAtTheEndIsLoggedAndNotGivenBack) {
  testing::FakeStorage storage(4, 2);
  const testing::CapturedLog captured;
  {
    ExpertCache cache(storage.loader, storage.slots, storage.binding, std::make_unique<LrfuPolicy>(4), storage.clock);
    static_cast<void>(cache.acquire(Units{0, 1}));
    storage.binding.fail_unbinds(1);
  }
  EXPECT_EQ(storage.slots.free_count(), 1u);
  ASSERT_EQ(captured.records().size(), 1u);
  EXPECT_EQ(captured.records().front().message, "Closing the expert cache: no mapping left");
}

}  // namespace
}  // namespace tierpool
