#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/forwarding_device.hpp"
#include "support/weight_window_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/host_pages.hpp"
#include "tierpool/device/simulated_device.hpp"
#include "tierpool/storage/mapping_count.hpp"
#include "tierpool/storage/weight_window.hpp"

namespace tierpool {
namespace {

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

class WeightWindowMappingsTest : public testing::WeightWindowTest {
 protected:
  /// Units of single pages: the first of each lies alone, the second between those of its neighbours.
  [[nodiscard]] UnitTable scattered_units() const {
    std::vector<std::vector<Extent>> units;
    for (std::uint64_t i = 0; i < kUnits; ++i) {
      units.push_back({{0, (3 * i + 1) * page_, page_}, {0, (60 + i) * page_, page_}});
    }
    return {units, page_};
  }
  [[nodiscard]] std::uint64_t mappings_of_the_file() const {
    return mappings_within(mapping_.address(), kFilePages * page_);
  }
};

TEST_F(WeightWindowMappingsTest, MappingsThatGoGrowTogetherAgain) {
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

TEST_F(WeightWindowMappingsTest, TakesNoMoreMappingsThanItCounts) {
  const auto window = make_window(Uncovered::reads_file);
  window->load_resident(layout_.resident, MemoryPurpose::resident_weights, reader_, budget_);
  window->load_resident(layout_.edges, MemoryPurpose::edge_pages, reader_, budget_);
  for (UnitId first = 0; first + kSlots <= kUnits; ++first) {
    for (UnitId i = 0; i < kSlots; ++i) {
      window->bind(first + i, i);
    }
    EXPECT_LE(mappings_of_the_file(), window->most_mappings());
    EXPECT_GE(mappings_of_the_file(), window->most_mappings() * 9 / 10);
    for (UnitId i = 0; i < kSlots; ++i) {
      window->unbind(first + i);
    }
  }
}

TEST_F(WeightWindowMappingsTest, CountsEveryMappingOfUnitsThatLieAlone) {
  const UnitTable units = scattered_units();
  WeightWindow window(units, *slots_, {whole_file()}, {}, Uncovered::reads_file);
  EXPECT_EQ(window.most_mappings(), 1 + kSlots * 2 * 2);
  EXPECT_EQ(mappings_of_the_file(), 1U);
  for (SlotId slot = 0; slot < kSlots; ++slot) {
    window.bind(2 * slot + 1, slot);
  }
  EXPECT_EQ(mappings_of_the_file(), window.most_mappings());
}

TEST_F(WeightWindowMappingsTest, AsManyMappingsAsAreLeftAreEnoughAndOneMoreIsRefused) {
  const UnitTable units = scattered_units();
  constexpr std::uint64_t kNeeded = 1 + kSlots * 2 * 2;
  const HostMappings enough{.used = 301, .limit = 300 + kNeeded + kSpareMappings};  // the file is mapped already
  const auto make = [&](const SlotPool& slots, const HostMappings& mappings) {
    const WeightWindow window(units, slots, {whole_file()}, {}, Uncovered::reads_file, mappings);
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

/// Shared memory whose descriptor cannot be mapped for reading.
class UnmappableDevice final : public testing::ForwardingDevice<HostDevice> {
 public:
  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override {
    Reservation reservation = device_.reserve(bytes);
    reservation.file_descriptor = open("/dev/null", O_WRONLY);
    return reservation;
  }
};

TEST_F(WeightWindowMappingsTest, ASlotThatCannotBeShownChangesNothing) {
  UnmappableDevice unmappable;
  const SlotPool slots(unmappable, budget_, units_->largest_unit_bytes(), 1, page_);
  WeightWindow window(*units_, slots, {whole_file()}, {}, Uncovered::reads_file);
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

TEST_F(WeightWindowMappingsTest, RefusesSlotsThatCannotBeMappedASecondTime) {
  SimulatedDevice simulated;
  const SlotPool slots(simulated, budget_, units_->largest_unit_bytes(), 1, page_);
  EXPECT_THROW(WeightWindow(*units_, slots, {}, {}, Uncovered::reads_file), ConfigError);
  const SlotPool small(device_, budget_, page_, 1, page_);
  EXPECT_THROW(WeightWindow(*units_, small, {}, {}, Uncovered::reads_file), ConfigError);
}

}  // namespace
}  // namespace tierpool
