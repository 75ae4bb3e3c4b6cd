#include "tierpool/engine/loading_watch.hpp"

#include <gtest/gtest.h>

#include <optional>

#include "support/storage_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint32_t kUnits = 4;

struct LoadingWatchTest : ::testing::Test {
  void read(UnitId unit) { storage.reader.require_complete(storage.loader.load(unit, unit, ReadPriority::demand)); }

  testing::FakeStorage storage{kUnits, kUnits};
  const std::uint64_t unit_bytes = storage.units.unit_bytes(0);
  LoadingWatch watch;
};

TEST_F(LoadingWatchTest, CountsWhatIsReadWhileItIsFollowed) {
  EXPECT_EQ(watch.progress().total_bytes, 0U);
  std::optional<WatchedLoading> loading;
  loading.emplace(&watch, storage.reader, 2 * unit_bytes);
  EXPECT_EQ(watch.progress().read_bytes, 0U);
  EXPECT_EQ(watch.progress().total_bytes, 2 * unit_bytes);
  read(1);  // unit 0 reaches behind the file's end
  EXPECT_EQ(watch.progress().read_bytes, unit_bytes);
  loading.reset();  // as by an exception
  read(2);
  EXPECT_EQ(watch.progress().read_bytes, unit_bytes);
}

TEST_F(LoadingWatchTest, WhatIsReadAheadIsNoneOfIt) {
  WatchedLoading loading(&watch, storage.reader, unit_bytes);
  read(0);
  read(1);
  EXPECT_EQ(watch.progress().read_bytes, unit_bytes);
  loading.finish();
  EXPECT_EQ(watch.progress().read_bytes, unit_bytes);
}

TEST_F(LoadingWatchTest, CancelEndsReadsAndIsNotMissed) {
  WatchedLoading loading(&watch, storage.reader, kUnits * unit_bytes);
  storage.source->hold_from(0);
  const ReadHandle first = storage.loader.load(0, 0, ReadPriority::demand);
  const ReadHandle second = storage.loader.load(1, 1, ReadPriority::prefetch);
  storage.source->wait_for_calls(1);
  watch.cancel();
  storage.source->let_go();
  EXPECT_NE(storage.reader.wait(second), ReadOutcome::complete);
  static_cast<void>(storage.reader.wait(first));
  EXPECT_THROW(read(2), CancelledError);
  EXPECT_THROW(loading.require_wanted(), CancelledError);
  EXPECT_THROW(loading.finish(), CancelledError);
}

TEST_F(LoadingWatchTest, CancelBeforeItBeginsIsNotMissed) {
  watch.cancel();
  const WatchedLoading loading(&watch, storage.reader, unit_bytes);
  EXPECT_THROW(loading.require_wanted(), CancelledError);
}

TEST_F(LoadingWatchTest, CancelAfterItsEndChangesNothing) {
  WatchedLoading loading(&watch, storage.reader, unit_bytes);
  loading.finish();
  watch.cancel();
  EXPECT_NO_THROW(read(0));
}

TEST_F(LoadingWatchTest, NobodyMayWatch) {
  WatchedLoading loading(nullptr, storage.reader, unit_bytes);
  EXPECT_NO_THROW(loading.require_wanted());
  EXPECT_NO_THROW(loading.finish());
}

}  // namespace
}  // namespace tierpool
