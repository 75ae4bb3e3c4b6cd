#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "tierpool/device/device.hpp"
#include "tierpool/storage/memory_budget.hpp"

namespace tierpool {

/// Names a slot: a fixed piece of committed memory that holds one unit. From 0 up without gaps.
using SlotId = std::uint32_t;

/// One slab of a device, cut into equal slots, populated once and recycled: the pages behind a slot never change.
/// Every call is thread-safe.
class SlotPool {
 public:
  /// Takes the slab from `budget` and commits it. Slots are whole pages of `page_bytes`.
  /// Throws ConfigError for no slots or slots that are not whole pages, BudgetError, and DeviceError when the device
  /// has not that much. `device` and `budget` outlive the pool.
  SlotPool(Device& device, MemoryBudget& budget, std::uint64_t slot_bytes, std::uint32_t slot_count,
           std::uint64_t page_bytes);
  ~SlotPool();
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  /// The slot given back last, which the caches may still hold; none when all are taken.
  [[nodiscard]] std::optional<SlotId> take() noexcept;
  /// Throws InvalidHandleError for a slot that is not taken.
  void give_back(SlotId slot);

  [[nodiscard]] std::uint64_t address(SlotId slot) const noexcept { return slab_.address + offset_bytes(slot); }
  /// Of a slot in the slab, and in its file.
  [[nodiscard]] std::uint64_t offset_bytes(SlotId slot) const noexcept { return slot * slot_bytes_; }
  /// Through which slots can be mapped a second time; -1 when the device has none.
  [[nodiscard]] int file_descriptor() const noexcept { return slab_.file_descriptor; }
  [[nodiscard]] std::uint64_t slot_bytes() const noexcept { return slot_bytes_; }
  [[nodiscard]] std::uint32_t slot_count() const noexcept { return slot_count_; }
  [[nodiscard]] std::uint32_t free_count() const;

 private:
  Device& device_;
  const std::uint64_t slot_bytes_;
  const std::uint32_t slot_count_;
  MemoryBudget::Share share_;
  Reservation slab_;
  mutable std::mutex mutex_;            // guards all below
  std::vector<SlotId> free_;            // the last is the next
  std::vector<std::uint8_t> is_taken_;  // by slot
};

}  // namespace tierpool
