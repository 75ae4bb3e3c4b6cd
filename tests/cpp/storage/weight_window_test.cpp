#include "tierpool/storage/weight_window.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "support/weight_window_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::FakeSource;
using testing::FileMapping;
using testing::holds;
using WeightWindowTest = testing::WeightWindowTest;

TEST_F(WeightWindowTest, ShowsTheFileAtEveryAddressWhateverIsLoaded) {
  const auto window = make_window(Uncovered::reads_file);
  window->load_resident(layout_.resident, MemoryPurpose::resident_weights, reader_, budget_);
  window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
  ASSERT_TRUE(shows_the_file());
  std::mt19937 random(11);
  std::vector<std::optional<UnitId>> shown(kSlots);
  for (int step = 0; step < 400; ++step) {
    const SlotId slot = static_cast<SlotId>(random() % kSlots);
    const UnitId unit = static_cast<UnitId>(random() % kUnits);
    if (shown[slot]) {
      window->unbind(*shown[slot]);
      shown[slot].reset();
      ASSERT_TRUE(shows_the_file()) << step;
    }
    if (std::find(shown.begin(), shown.end(), unit) == shown.end()) {
      load(unit, slot);
      ASSERT_TRUE(shows_the_file()) << "a slot showed through an old address in step " << step;
      window->bind(unit, slot);
      shown[slot] = unit;
      ASSERT_TRUE(shows_the_file()) << step;
    }
  }
}

TEST_F(WeightWindowTest, StrictlyOnlyWhatWasLoadedCanBeRead) {
  const auto window = make_window(Uncovered::refused);
  EXPECT_EQ(readable_pages(), std::vector<bool>(kFilePages, false));
  window->load_resident(layout_.resident, MemoryPurpose::resident_weights, reader_, budget_);
  window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
  std::vector<bool> expected(kFilePages, false);
  mark(layout_.resident, expected);
  mark(layout_.edges, expected);
  EXPECT_EQ(readable_pages(), expected);
  load(3, 0);
  load(5, 1);
  window->bind(3, 0);
  window->bind(5, 1);
  std::vector<bool> with_units = expected;
  mark(layout_.units[3], with_units);
  mark(layout_.units[5], with_units);
  EXPECT_EQ(readable_pages(), with_units);
  EXPECT_TRUE(shows_the_file(layout_.units[3]) && shows_the_file(layout_.units[5]));
  EXPECT_TRUE(shows_the_file(layout_.edges) && shows_the_file(layout_.resident));
  window->unbind(3);
  window->unbind(5);
  EXPECT_EQ(readable_pages(), expected);
}

TEST_F(WeightWindowTest, ABoundUnitIsSeenInItsSlotAndNowhereElse) {
  const auto window = make_window(Uncovered::reads_file);
  load(2, 1);
  window->bind(2, 1);
  auto* slot = static_cast<unsigned char*>(pointer_at(slots_->address(1)));
  const Extent& first = layout_.units[2].front();
  slot[5] = static_cast<unsigned char>(~slot[5]);
  EXPECT_FALSE(holds(window->address(first), bytes_, first.offset_bytes, first.size_bytes));
  window->unbind(2);
  EXPECT_TRUE(shows_the_file());
}

// What every comparison above rests on: wrong bytes in a slot are seen.
TEST_F(WeightWindowTest, SwappedSlotsAreSeen) {
  const auto window = make_window(Uncovered::reads_file);
  load(0, 0);
  load(1, 1);
  window->bind(0, 1);
  window->bind(1, 0);
  EXPECT_FALSE(shows_the_file(layout_.units[0]));
  EXPECT_FALSE(shows_the_file(layout_.units[1]));
  window->unbind(0);
  window->unbind(1);
  EXPECT_TRUE(shows_the_file());
}

TEST_F(WeightWindowTest, ResidentPagesAreCopiesAndCountAgainstTheBudget) {
  const std::uint64_t slot_bytes = budget_.used_bytes();
  {
    const auto window = make_window(Uncovered::reads_file);
    window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
    std::uint64_t edge_bytes = 0;
    for (const Extent& extent : layout_.edges) {
      edge_bytes += extent.size_bytes;
    }
    ASSERT_GT(edge_bytes, 0u);
    EXPECT_EQ(budget_.used_bytes(MemoryPurpose::edge_pages), edge_bytes);
    // A file that is written to shows where it is read, and not where it was copied.
    const int file = open(file_.path().c_str(), O_WRONLY);
    const Extent& edge = layout_.edges[1];
    const Extent& uncovered = layout_.units[4].front();
    for (const Extent& extent : {edge, uncovered}) {
      const unsigned char changed = static_cast<unsigned char>(~bytes_[extent.offset_bytes]);
      ASSERT_EQ(pwrite(file, &changed, 1, static_cast<off_t>(extent.offset_bytes)), 1);
    }
    close(file);
    EXPECT_TRUE(holds(window->address(edge), bytes_, edge.offset_bytes, edge.size_bytes));
    EXPECT_FALSE(holds(window->address(uncovered), bytes_, uncovered.offset_bytes, uncovered.size_bytes));
  }
  EXPECT_EQ(budget_.used_bytes(), slot_bytes);
}

TEST_F(WeightWindowTest, AFailedReadLeavesNoResidentPageBehind) {
  const auto window = make_window(Uncovered::refused);
  for (const auto failure : {FakeSource::Failure::io_error, FakeSource::Failure::short_read}) {
    for (std::size_t point = 0; point < layout_.edges.size(); ++point) {
      const std::uint64_t used_bytes = budget_.used_bytes();
      source_->fail_at(source_->calls().size() + point, failure);
      EXPECT_THROW(window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_), ReadError);
      EXPECT_EQ(readable_pages(), std::vector<bool>(kFilePages, false));
      EXPECT_EQ(budget_.used_bytes(), used_bytes);
      source_->recover();
    }
  }
  window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
  EXPECT_TRUE(shows_the_file(layout_.edges));
}

TEST_F(WeightWindowTest, RefusesResidentPagesThatAreNotFree) {
  const auto window = make_window(Uncovered::reads_file);
  const auto load_resident = [&](const Extent& extent) {
    window->load_resident(std::vector<Extent>{extent}, MemoryPurpose::resident_weights, reader_, budget_);
  };
  EXPECT_THROW(load_resident(layout_.units[1].front()), ConfigError);
  EXPECT_THROW(load_resident({0, kFilePages * page_, page_}), ConfigError);
  EXPECT_THROW(load_resident({1, 0, page_}), ConfigError);
  EXPECT_THROW(load_resident({0, 1, page_}), ConfigError);
  load_resident(layout_.edges.front());
  EXPECT_THROW(load_resident(layout_.edges.front()), ConfigError);
  MemoryBudget small("host", page_ - 1);
  EXPECT_THROW(
      window->load_resident(std::vector<Extent>{layout_.edges.back()}, MemoryPurpose::edge_pages, reader_, small),
      BudgetError);
  reader_.close();
  EXPECT_THROW(load_resident(layout_.edges.back()), CancelledError);
  EXPECT_TRUE(shows_the_file());
}

TEST_F(WeightWindowTest, RefusesUnitsThatAreBoundAlreadyOrNotAtAll) {
  const auto window = make_window(Uncovered::reads_file);
  EXPECT_THROW(window->unbind(0), InvalidHandleError);
  load(0, 0);
  window->bind(0, 0);
  EXPECT_THROW(window->bind(0, 1), InvalidHandleError);
  window->unbind(0);
  EXPECT_THROW(window->unbind(0), InvalidHandleError);
}

TEST_F(WeightWindowTest, LeavesTheMappingAsItWas) {
  {
    const auto window = make_window(Uncovered::refused);
    window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
    load(6, 2);
    window->bind(6, 2);
  }
  std::memset(pointer_at(slots_->address(2)), 0, slots_->slot_bytes());
  EXPECT_TRUE(shows_the_file());
}

TEST_F(WeightWindowTest, APartOfAFileIsEnough) {
  const std::uint64_t offset = layout_.units[0].front().offset_bytes;
  const std::uint64_t bytes = kFilePages * page_ - offset;
  const FileMapping part(file_.path(), offset, bytes);
  const WindowFile file{part.address(), offset, bytes, part.file_descriptor()};
  {
    WeightWindow window(*units_, *slots_, {file}, {}, Uncovered::reads_file);
    load(0, 0);
    window.bind(0, 0);
    EXPECT_EQ(window.address(layout_.units[0].front()), part.address());
    EXPECT_TRUE(holds(part.address(), bytes_, offset, bytes));
  }
  const WindowFile too_small{part.address() + page_, offset + page_, bytes - page_, part.file_descriptor()};
  EXPECT_THROW(WeightWindow(*units_, *slots_, {too_small}, {}, Uncovered::reads_file), ConfigError);
  EXPECT_THROW(WeightWindow(*units_, *slots_, {}, {}, Uncovered::reads_file), ConfigError);
}

}  // namespace
}  // namespace tierpool
