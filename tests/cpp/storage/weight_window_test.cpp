#include "tierpool/storage/weight_window.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/fake_clock.hpp"
#include "support/fake_source.hpp"
#include "support/file_mapping.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/host_pages.hpp"
#include "tierpool/device/simulated_device.hpp"
#include "tierpool/storage/mapping_count.hpp"
#include "tierpool/storage/unit_layout.hpp"
#include "tierpool/storage/unit_loader.hpp"

namespace tierpool {
namespace {

using testing::FakeSource;
using testing::FileMapping;
using testing::holds;

constexpr std::uint64_t kFilePages = 120;
constexpr std::uint32_t kUnits = 10;
constexpr std::uint32_t kSlots = 4;

/// Whether a read of this address succeeds, tried without being ended by it.
bool is_readable(std::uint64_t address) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const ssize_t written = write(ends[1], pointer_at(address), 1);
  close(ends[0]);
  close(ends[1]);
  return written == 1;
}

/// Mappings of this process that overlap with the given range.
std::uint64_t mappings_within(std::uint64_t address, std::uint64_t bytes) {
  std::ifstream table("/proc/self/maps");
  std::uint64_t count = 0;
  for (std::string line; std::getline(table, line);) {
    std::size_t digits = 0;
    const std::uint64_t begin = std::stoull(line, &digits, 16);
    const std::uint64_t end = std::stoull(line.substr(digits + 1), nullptr, 16);
    count += begin < address + bytes && end > address ? 1 : 0;
  }
  return count;
}

/// Tensors of units and resident ones in turn, none of them a whole number of pages.
class WeightWindowTest : public ::testing::Test {
 protected:
  WeightWindowTest() {
    std::vector<std::vector<Extent>> stretches(kUnits);
    std::uint64_t offset = 700;
    resident_bytes_.push_back({0, 0, offset});
    for (std::uint64_t i = 0; i < 3 * kUnits; ++i) {
      const std::uint64_t bytes = 3 * page_ + 32 * (i % 11);
      stretches[i % kUnits].push_back({0, offset, bytes});
      offset += bytes;
      if (i % kUnits == kUnits - 1) {
        resident_bytes_.push_back({0, offset, 2 * page_});
        offset += 2 * page_;
      }
    }
    layout_ = lay_out_units(stretches, resident_bytes_, page_);
    units_ = std::make_unique<UnitTable>(layout_.units, page_);
    slots_ = std::make_unique<SlotPool>(device_, budget_, units_->largest_unit_bytes(), kSlots, page_);
    loader_ = std::make_unique<UnitLoader>(reader_, *units_, *slots_);
  }

  std::unique_ptr<WeightWindow> make_window(Uncovered uncovered) {
    const WindowFile file{mapping_.address(), 0, kFilePages * page_, mapping_.file_descriptor()};
    return std::make_unique<WeightWindow>(*units_, *slots_, std::vector<WindowFile>{file}, layout_.copies(), uncovered);
  }
  void load(UnitId unit, SlotId slot) {
    ASSERT_EQ(reader_.wait(loader_->load(unit, slot, ReadPriority::demand)), ReadOutcome::complete);
  }
  [[nodiscard]] bool shows_the_file() const { return holds(mapping_.address(), bytes_, 0, kFilePages * page_); }
  [[nodiscard]] bool shows_the_file(const std::vector<Extent>& extents) const {
    return std::all_of(extents.begin(), extents.end(), [&](const Extent& extent) {
      return holds(mapping_.address() + extent.offset_bytes, bytes_, extent.offset_bytes, extent.size_bytes);
    });
  }
  [[nodiscard]] std::vector<bool> readable_pages() const {
    std::vector<bool> readable;
    for (std::uint64_t page = 0; page < kFilePages; ++page) {
      readable.push_back(is_readable(mapping_.address() + page * page_));
    }
    return readable;
  }
  void mark(const std::vector<Extent>& extents, std::vector<bool>& pages) const {
    for (const Extent& extent : extents) {
      std::fill_n(pages.begin() + static_cast<std::ptrdiff_t>(extent.offset_bytes / page_), extent.size_bytes / page_,
                  true);
    }
  }

  const std::uint64_t page_ = testing::system_page_bytes();
  const std::vector<unsigned char> bytes_ = testing::random_bytes(kFilePages * page_ - 1234, 9);
  const testing::TemporaryFile file_{bytes_};
  const FileMapping mapping_{file_.path(), 0, kFilePages* page_};
  const std::shared_ptr<FakeSource> source_ = std::make_shared<FakeSource>(bytes_);
  testing::FakeClock clock_;
  HostDevice device_{HostBacking::shared_memory};
  MemoryBudget budget_{"host", kGiB};
  std::vector<Extent> resident_bytes_;
  UnitLayout layout_;
  std::unique_ptr<UnitTable> units_;
  std::unique_ptr<SlotPool> slots_;
  DirectReader reader_{{source_}, {.threads = 2}, clock_};
  std::unique_ptr<UnitLoader> loader_;
};

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

TEST_F(WeightWindowTest, MappingsThatGoGrowTogetherAgain) {
  const auto window = make_window(Uncovered::reads_file);
  const std::uint64_t before = host_mappings().used;
  for (UnitId unit = 0; unit < kUnits; ++unit) {
    window->bind(unit, unit % kSlots);
  }
  EXPECT_GT(host_mappings().used, before + kUnits);
  for (UnitId unit = 0; unit < kUnits; ++unit) {
    window->unbind(unit);
  }
  EXPECT_LE(host_mappings().used, before + 2);  // but for what the test itself maps meanwhile
}

/// Units of single pages: the first of each lies alone, the second between those of its neighbours.
std::vector<std::vector<Extent>> scattered_units(std::uint64_t page) {
  std::vector<std::vector<Extent>> units;
  for (std::uint64_t i = 0; i < kUnits; ++i) {
    units.push_back({{0, (3 * i + 1) * page, page}, {0, (60 + i) * page, page}});
  }
  return units;
}

TEST_F(WeightWindowTest, TakesNoMoreMappingsThanItCounts) {
  const auto window = make_window(Uncovered::reads_file);
  window->load_resident(layout_.resident, MemoryPurpose::resident_weights, reader_, budget_);
  window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
  for (UnitId first = 0; first + kSlots <= kUnits; ++first) {
    for (UnitId i = 0; i < kSlots; ++i) {
      window->bind(first + i, i);
    }
    EXPECT_LE(mappings_within(mapping_.address(), kFilePages * page_), window->most_mappings());
    EXPECT_GE(mappings_within(mapping_.address(), kFilePages * page_), window->most_mappings() * 9 / 10);
    for (UnitId i = 0; i < kSlots; ++i) {
      window->unbind(first + i);
    }
  }
}

TEST_F(WeightWindowTest, CountsEveryMappingOfUnitsThatLieAlone) {
  const UnitTable units(scattered_units(page_), page_);
  const WindowFile file{mapping_.address(), 0, kFilePages * page_, mapping_.file_descriptor()};
  WeightWindow window(units, *slots_, {file}, {}, Uncovered::reads_file);
  EXPECT_EQ(window.most_mappings(), 1 + kSlots * 2 * 2);
  EXPECT_EQ(mappings_within(mapping_.address(), kFilePages * page_), 1U);
  for (SlotId slot = 0; slot < kSlots; ++slot) {
    window.bind(2 * slot + 1, slot);
  }
  EXPECT_EQ(mappings_within(mapping_.address(), kFilePages * page_), window.most_mappings());
}

TEST_F(WeightWindowTest, AsManyMappingsAsAreLeftAreEnoughAndOneMoreIsRefused) {
  const UnitTable units(scattered_units(page_), page_);
  const WindowFile file{mapping_.address(), 0, kFilePages * page_, mapping_.file_descriptor()};
  constexpr std::uint64_t kNeeded = 1 + kSlots * 2 * 2;
  const HostMappings enough{.used = 301, .limit = 300 + kNeeded + kSpareMappings};  // the file is mapped already
  const auto make = [&](const SlotPool& slots, const HostMappings& mappings) {
    const WeightWindow window(units, slots, {file}, {}, Uncovered::reads_file, mappings);
    return window.most_mappings();
  };
  EXPECT_EQ(make(*slots_, enough), kNeeded);
  const SlotPool one_more(device_, budget_, units_->largest_unit_bytes(), kSlots + 1, page_);
  const HostMappings fewer{.used = 302, .limit = enough.limit};
  const std::vector<std::pair<const SlotPool*, HostMappings>> refused{{&one_more, enough}, {slots_.get(), fewer}};
  for (const auto& [slots, mappings] : refused) {
    try {
      make(*slots, mappings);
      ADD_FAILURE() << "took mappings that are not there";
    } catch (const BudgetError& error) {
      EXPECT_NE(std::string(error.what()).find("raise the limit (sysctl vm.max_map_count) or use fewer slots"),
                std::string::npos)
          << error.what();
    }
  }
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

/// Shared memory whose descriptor cannot be mapped for reading.
class UnmappableDevice final : public Device {
 public:
  [[nodiscard]] const std::string& name() const noexcept override { return device_.name(); }
  [[nodiscard]] std::uint64_t total_bytes() const override { return device_.total_bytes(); }
  [[nodiscard]] std::uint64_t free_bytes() const override { return device_.free_bytes(); }
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override { return device_.granularity_bytes(); }
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return device_.max_alignment_bytes(); }
  [[nodiscard]] bool host_accessible() const noexcept override { return true; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return true; }
  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override {
    Reservation reservation = device_.reserve(bytes);
    reservation.file_descriptor = open("/dev/null", O_WRONLY);
    return reservation;
  }
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.commit(address, bytes);
  }
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.decommit(address, bytes);
  }
  void release(const Reservation& reservation) noexcept override { device_.release(reservation); }
  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    return device_.allocate_direct(bytes, alignment);
  }
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    device_.free_direct(address, bytes, alignment);
  }
  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override {
    device_.copy(destination, source, bytes);
  }

 private:
  HostDevice device_;
};

TEST_F(WeightWindowTest, ASlotThatCannotBeShownChangesNothing) {
  UnmappableDevice unmappable;
  const SlotPool slots(unmappable, budget_, units_->largest_unit_bytes(), 1, page_);
  const WindowFile file{mapping_.address(), 0, kFilePages * page_, mapping_.file_descriptor()};
  WeightWindow window(*units_, slots, {file}, {}, Uncovered::reads_file);
  try {
    window.bind(4, 0);
    ADD_FAILURE() << "mapped what cannot be mapped";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("Cannot show unit 4: Permission denied"), std::string::npos)
        << error.what();
  }
  EXPECT_TRUE(shows_the_file());
  EXPECT_THROW(window.unbind(4), InvalidHandleError);
}

TEST_F(WeightWindowTest, RefusesSlotsThatCannotBeMappedASecondTime) {
  SimulatedDevice simulated;
  const SlotPool slots(simulated, budget_, units_->largest_unit_bytes(), 1, page_);
  EXPECT_THROW(WeightWindow(*units_, slots, {}, {}, Uncovered::reads_file), ConfigError);
  const SlotPool small(device_, budget_, page_, 1, page_);
  EXPECT_THROW(WeightWindow(*units_, small, {}, {}, Uncovered::reads_file), ConfigError);
}

}  // namespace
}  // namespace tierpool
