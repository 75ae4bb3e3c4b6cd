#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "support/fake_clock.hpp"
#include "support/fake_source.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/storage/slot_binding.hpp"
#include "tierpool/storage/unit_loader.hpp"

namespace tierpool::testing {

/// A binding that shows nothing, but sees to it that slots are shown as they must be: complete, for one unit, and left
/// alone while they are shown. Fails on demand. Thread-safe.
class CheckedBinding final : public SlotBinding {
 public:
  CheckedBinding(const UnitTable& units, const SlotPool& slots, const std::vector<unsigned char>& file)
      : units_(units), slots_(slots), file_(file) {}

  void bind(UnitId unit, SlotId slot) override {
    const std::lock_guard lock(mutex_);
    if (failing_binds_ > 0) {
      --failing_binds_;
      throw DeviceError("no mapping left");
    }
    misuse_ += shown_.contains(unit) || units_by_slot_.contains(slot) || !slot_holds(unit, slot) ? 1 : 0;
    shown_[unit] = slot;
    units_by_slot_[slot] = unit;
  }
  void unbind(UnitId unit) override {
    const std::lock_guard lock(mutex_);
    if (failing_unbinds_ > 0) {
      --failing_unbinds_;
      throw DeviceError("no mapping left");
    }
    const auto found = shown_.find(unit);
    if (found == shown_.end()) {
      ++misuse_;
      return;
    }
    misuse_ += slot_holds(unit, found->second) ? 0 : 1;  // someone wrote to it while it was shown
    units_by_slot_.erase(found->second);
    shown_.erase(found);
  }

  void fail_binds(int times) { failing_binds_ = times; }
  void fail_unbinds(int times) { failing_unbinds_ = times; }

  /// Whether the unit is shown, with its own bytes.
  [[nodiscard]] bool shows(UnitId unit) const {
    const std::lock_guard lock(mutex_);
    const auto found = shown_.find(unit);
    return found != shown_.end() && slot_holds(unit, found->second);
  }
  [[nodiscard]] std::size_t shown_count() const {
    const std::lock_guard lock(mutex_);
    return shown_.size();
  }
  [[nodiscard]] int misuse_count() const { return misuse_; }

 private:
  [[nodiscard]] bool slot_holds(UnitId unit, SlotId slot) const {
    std::uint64_t address = slots_.address(slot);
    for (const Extent& extent : units_.extents(unit)) {
      if (!holds(address, file_, extent.offset_bytes, extent.size_bytes)) {
        return false;
      }
      address += extent.size_bytes;
    }
    return true;
  }

  const UnitTable& units_;
  const SlotPool& slots_;
  const std::vector<unsigned char>& file_;
  mutable std::mutex mutex_;
  std::map<UnitId, SlotId> shown_;
  std::map<SlotId, UnitId> units_by_slot_;
  std::atomic<int> failing_binds_{0};
  std::atomic<int> failing_unbinds_{0};
  std::atomic<int> misuse_{0};
};

/// Units of two extents, in a file in memory, and everything that brings them into slots.
struct FakeStorage {
  static constexpr std::uint64_t kPieceBytes = 64 * kKiB;

  FakeStorage(std::uint32_t unit_count, std::uint32_t slot_count, std::uint32_t threads = 2)
      : source(std::make_shared<FakeSource>(random_bytes((3 * unit_count + 1) * page - 99, unit_count), &clock)),
        units(make_units(unit_count, page), page),
        slots(device, budget, 3 * page, slot_count, page),
        binding(units, slots, source->bytes()),
        reader({source}, {.threads = threads, .piece_bytes = kPieceBytes}, clock),
        loader(reader, units, slots) {}

  /// Unit i: two pages from the front of the file, one from the back.
  static std::vector<std::vector<Extent>> make_units(std::uint32_t unit_count, std::uint64_t page) {
    std::vector<std::vector<Extent>> units;
    for (std::uint64_t i = 0; i < unit_count; ++i) {
      units.push_back({{0, 2 * i * page, 2 * page}, {0, (3 * unit_count - i) * page, page}});
    }
    return units;
  }

  /// Fails the test where slots were misused, or are still shown or taken.
  void expect_everything_given_back() const {
    EXPECT_EQ(binding.misuse_count(), 0);
    EXPECT_EQ(binding.shown_count(), 0u);
    EXPECT_EQ(slots.free_count(), slots.slot_count());
  }

  const std::uint64_t page = system_page_bytes();
  FakeClock clock;
  std::shared_ptr<FakeSource> source;
  UnitTable units;
  HostDevice device;
  MemoryBudget budget{"host", kGiB};
  SlotPool slots;
  CheckedBinding binding;
  DirectReader reader;
  UnitLoader loader;
};

}  // namespace tierpool::testing
