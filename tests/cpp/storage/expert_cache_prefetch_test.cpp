// What a cache fetches before anyone asks for it.

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "support/cached_storage.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/storage/expert_cache.hpp"

namespace tierpool {
namespace {

using testing::CachedStorage;
using testing::FakeSource;
using Units = std::vector<UnitId>;

TEST(ExpertCache, PrefetchFillsFreeSlotsAndMakesHits) {
  CachedStorage storage(8, 3);
  storage.use({1});
  EXPECT_EQ(storage.cache.prefetch(Units{1, 2, 3, 4}), 2u);  // one is there, two slots are free
  while (storage.reader.statistics().read_bytes < 9 * storage.page) {
    std::this_thread::yield();
  }
  EXPECT_EQ(storage.binding.shown_count(), 1u);
  storage.use({2, 3});
  EXPECT_EQ(storage.cache.statistics().hits, 2u);
  EXPECT_EQ(storage.cache.statistics().prefetches, 2u);
  EXPECT_EQ(storage.cache.statistics().loads, 3u);
  EXPECT_EQ(storage.cache.statistics().evictions, 0u);
}

TEST(ExpertCache, PreloadReturnsWhenFreeSlotsAreFullAndCountsNoRequest) {
  CachedStorage storage(8, 3);
  storage.use({1});
  const CacheStatistics before = storage.cache.statistics();
  EXPECT_EQ(storage.cache.preload(Units{1, 2, 3, 4}), 2u);
  const CacheStatistics after = storage.cache.statistics();
  EXPECT_EQ(after.requests, before.requests);
  EXPECT_EQ(after.read_bytes - before.read_bytes, 6 * storage.page);
  storage.use({2, 3});
  EXPECT_EQ(storage.cache.statistics().hits, 2u);
  EXPECT_EQ(storage.cache.statistics().loads, 3u);
}

TEST(ExpertCache, APreloadThatFailsIsThrownAndTheNextCallWorks) {
  for (std::size_t failing = 0; failing < 4; ++failing) {
    CachedStorage storage(8, 2, 1);
    storage.source->fail_at(failing, FakeSource::Failure::io_error);
    EXPECT_THROW(storage.cache.preload(Units{5, 6}), ReadError);
    storage.source->recover();
    storage.use({5, 6});
    EXPECT_TRUE(storage.shows({5, 6}));
  }
}

TEST(ExpertCache, CancelEndsAPreload) {
  CachedStorage storage(8, 2, 1);
  storage.source->hold_from(0);
  std::thread loader([&] { EXPECT_THROW(storage.cache.preload(Units{5, 6}), CancelledError); });
  storage.source->wait_for_calls(1);
  storage.cache.cancel();
  storage.source->let_go();
  loader.join();
  storage.use({5, 6});
}

TEST(ExpertCache, ADemandJoinsThePrefetchOfItsUnit) {
  CachedStorage storage(8, 3, 1);
  storage.source->hold_from(0);
  EXPECT_EQ(storage.cache.prefetch(Units{5, 6}), 2u);
  storage.source->wait_for_calls(1);
  std::thread user([&] { storage.use({6}); });
  while (storage.reader.statistics().joined == 0) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  user.join();
  EXPECT_TRUE(storage.shows({6}));
  EXPECT_EQ(storage.cache.statistics().misses, 1u);  // it was not there when it was asked for
  EXPECT_EQ(storage.cache.statistics().loads, 2u);
  // The rest of the other prefetch came behind the demand.
  EXPECT_EQ(storage.source->calls()[1].offset_bytes, 12 * storage.page);
}

TEST(ExpertCache, ADemandThatNeedsTheSlotCancelsAPrefetch) {
  CachedStorage storage(8, 2, 1);
  storage.source->hold_from(0);
  EXPECT_EQ(storage.cache.prefetch(Units{5, 6}), 2u);
  storage.source->wait_for_calls(1);
  std::thread user([&] { storage.use({1, 2}); });
  while (storage.reader.statistics().cancelled < 1) {
    std::this_thread::yield();
  }
  storage.source->let_go();
  user.join();
  EXPECT_TRUE(storage.shows({1, 2}));
  EXPECT_EQ(storage.cache.statistics().misses, 2u);
}

TEST(ExpertCache, AFailedPrefetchIsNoHitAndIsReadAgain) {
  CachedStorage storage(8, 2, 1);
  storage.source->fail_at(0, FakeSource::Failure::io_error);
  EXPECT_EQ(storage.cache.prefetch(Units{5}), 1u);
  while (storage.reader.statistics().failed == 0) {
    std::this_thread::yield();
  }
  storage.source->recover();
  storage.use({5});
  EXPECT_EQ(storage.cache.statistics().misses, 1u);
  EXPECT_TRUE(storage.shows({5}));
}

}  // namespace
}  // namespace tierpool
