#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "support/cached_storage.hpp"
#include "support/child_process.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/storage/expert_cache.hpp"

namespace tierpool {
namespace {

using testing::CachedStorage;
using Units = std::vector<UnitId>;

TEST(ExpertCacheCancel, CancelEndsAWaitAndTheNextCallWorks) {
  CachedStorage storage(8, 4, 1);
  storage.use({0});
  storage.source->hold_from(storage.source->calls().size());
  std::thread user([&] { EXPECT_THROW(storage.use({0, 1, 2}), CancelledError); });
  storage.source->wait_for_calls(3);
  storage.cache.cancel();
  storage.source->let_go();  // a call that has begun cannot be taken back
  user.join();
  EXPECT_TRUE(storage.shows({0}));
  storage.use({0, 1, 2, 3});
  EXPECT_TRUE(storage.shows({0, 1, 2, 3}));
}

// Every piece of the read is under way, so that it completes all the same.
TEST(ExpertCacheCancel, ACancelThatComesTooLateToStopTheReadStillEndsTheWait) {
  CachedStorage storage(8, 4, 2);
  storage.source->hold_from(0);
  std::thread user([&] { EXPECT_THROW(storage.use({0}), CancelledError); });
  storage.source->wait_for_calls(2);
  storage.cache.cancel();
  storage.source->let_go();
  user.join();
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  storage.use({0});
  EXPECT_TRUE(storage.shows({0}));
}

TEST(ExpertCacheCancel, ACallRightBehindCancelIsNotCancelled) {
  CachedStorage storage(8, 2, 1);
  storage.source->hold_from(0);
  EXPECT_EQ(storage.cache.prefetch(Units{1, 2}), 2u);
  storage.source->wait_for_calls(1);
  storage.cache.cancel();  // a thread still reads unit 1
  std::thread user([&] { storage.use({1, 2}); });
  storage.source->let_go();
  user.join();
  EXPECT_TRUE(storage.shows({1, 2}));
}

// Units 5 and 6 are given up while a thread still writes to each of their slots, and only one of the two ends.
TEST(ExpertCacheCancel, ASlotIsNotFilledWhileACancelledReadStillWritesToIt) {
  CachedStorage storage(8, 2, 4);
  storage.source->hold({0, 1, 2, 3});
  EXPECT_EQ(storage.cache.prefetch(Units{5}), 1u);
  storage.source->wait_for_calls(2);
  EXPECT_EQ(storage.cache.prefetch(Units{6}), 1u);
  storage.source->wait_for_calls(4);
  storage.cache.cancel();
  std::thread user([&] {
    const ExpertCache::Lease lease = storage.cache.acquire(Units{1, 2});
    EXPECT_TRUE(storage.shows({1, 2}));
  });
  storage.source->release(2);
  storage.source->release(3);
  while (storage.slots.free_count() == 0 && storage.reader.statistics().requests < 4) {
    std::this_thread::yield();
  }
  static_cast<void>(storage.cache.statistics());  // the user has done what it could
  EXPECT_EQ(storage.reader.statistics().requests, 2u);
  storage.source->release(0);
  storage.source->release(1);
  user.join();
}

TEST(ExpertCacheCancel, CloseEndsWaitsHidesEverythingAndRefusesMore) {
  CachedStorage storage(8, 4, 1);
  const ExpertCache::Lease lease = storage.cache.acquire(Units{0});  // may outlive close()
  storage.source->hold_from(storage.source->calls().size());
  std::thread user([&] { EXPECT_THROW(storage.use({1, 2}), CancelledError); });
  storage.source->wait_for_calls(3);
  std::thread closer([&] { storage.cache.close(); });
  while (storage.reader.statistics().cancelled == 0) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  user.join();
  closer.join();
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  EXPECT_EQ(storage.slots.free_count(), 4u);
  EXPECT_THROW(storage.use({0}), CancelledError);
  EXPECT_THROW(storage.cache.prefetch(Units{0}), CancelledError);
  storage.cache.close();
}

// A call is under way in the parent, which the child must not wait for.
TEST(ExpertCacheCancel, AForkedChildIsToldInsteadOfWaitingForEver) {
  CachedStorage storage(4, 2, 1);
  ExpertCache::Lease lease = storage.cache.acquire(Units{0});
  storage.source->hold_from(storage.source->calls().size());
  std::thread user([&] { storage.use({1}); });
  storage.source->wait_for_calls(3);
  const int status = testing::exit_status_of_child([&] {
    bool told = false;
    try {
      storage.use({0});
    } catch (const Error& error) {
      told = std::string(error.what()).find("forked") != std::string::npos;
    }
    lease = ExpertCache::Lease();
    storage.cache.cancel();
    storage.cache.close();
    return told ? 7 : 1;
  });
  EXPECT_EQ(status, 7);
  storage.source->let_go();
  user.join();
}

}  // namespace
}  // namespace tierpool
