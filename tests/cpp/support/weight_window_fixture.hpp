#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "support/fake_clock.hpp"
#include "support/fake_source.hpp"
#include "support/file_mapping.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/storage/unit_layout.hpp"
#include "tierpool/storage/unit_loader.hpp"
#include "tierpool/storage/weight_window.hpp"

namespace tierpool::testing {

/// Whether a read of this address succeeds, tried without being ended by it.
inline bool is_readable(std::uint64_t address) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const ssize_t written = write(ends[1], pointer_at(address), 1);
  close(ends[0]);
  close(ends[1]);
  return written == 1;
}

/// A window over a file with tensors of units and resident ones in turn, none of them a whole number of pages.
class WeightWindowTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kFilePages = 120;
  static constexpr std::uint32_t kUnits = 10;
  static constexpr std::uint32_t kSlots = 4;

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
    return std::make_unique<WeightWindow>(*units_, *slots_, std::vector<WindowFile>{whole_file()}, layout_.copies(),
                                          uncovered);
  }
  [[nodiscard]] WindowFile whole_file() const {
    return {mapping_.address(), 0, kFilePages * page_, mapping_.file_descriptor()};
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

  const std::uint64_t page_ = system_page_bytes();
  const std::vector<unsigned char> bytes_ = random_bytes(kFilePages * page_ - 1234, 9);
  const TemporaryFile file_{bytes_};
  const FileMapping mapping_{file_.path(), 0, kFilePages* page_};
  const std::shared_ptr<FakeSource> source_ = std::make_shared<FakeSource>(bytes_);
  FakeClock clock_;
  HostDevice device_{HostBacking::shared_memory};
  MemoryBudget budget_{"host", kGiB};
  std::vector<Extent> resident_bytes_;
  UnitLayout layout_;
  std::unique_ptr<UnitTable> units_;
  std::unique_ptr<SlotPool> slots_;
  DirectReader reader_{{source_}, {.threads = 2}, clock_};
  std::unique_ptr<UnitLoader> loader_;
};

}  // namespace tierpool::testing
