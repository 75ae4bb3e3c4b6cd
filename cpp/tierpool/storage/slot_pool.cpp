#include "tierpool/storage/slot_pool.hpp"

#include <limits>
#include <numeric>
#include <string>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

/// The bytes of the slab, in whole granules.
std::uint64_t slab_bytes(std::uint64_t slot_bytes, std::uint32_t slot_count, std::uint64_t page_bytes,
                         std::uint64_t granularity_bytes) {
  if (slot_count == 0 || slot_bytes == 0 || slot_bytes % page_bytes != 0) {
    throw ConfigError("A slot pool needs slots, of whole pages of " + std::to_string(page_bytes) + " bytes, not " +
                      std::to_string(slot_count) + " of " + std::to_string(slot_bytes) + " bytes");
  }
  if (slot_bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / slot_count) {
    throw ConfigError(std::to_string(slot_count) + " slots of " + std::to_string(slot_bytes) +
                      " bytes are more than can be addressed: use fewer");
  }
  return align_up(slot_bytes * slot_count, granularity_bytes);
}

}  // namespace

SlotPool::SlotPool(Device& device, MemoryBudget& budget, std::uint64_t slot_bytes, std::uint32_t slot_count,
                   std::uint64_t page_bytes)
    : device_(device),
      slot_bytes_(slot_bytes),
      slot_count_(slot_count),
      share_(budget.take(MemoryPurpose::slots,
                         slab_bytes(slot_bytes, slot_count, page_bytes, device.granularity_bytes()))),
      free_(slot_count),
      is_taken_(slot_count, 0) {
  std::iota(free_.rbegin(), free_.rend(), 0);
  slab_ = device_.reserve(share_.bytes());
  if (!device_.commit(slab_.address, slab_.bytes)) {
    device_.release(slab_);
    throw DeviceError("Device '" + device_.name() + "' cannot commit " + std::to_string(slot_count) + " slots of " +
                      format_memory_size(slot_bytes) + ", " + format_memory_size(share_.bytes()) + " in all; " +
                      format_memory_size(device_.free_bytes()) + " are free: use fewer slots");
  }
}

SlotPool::~SlotPool() { device_.release(slab_); }

std::optional<SlotId> SlotPool::take() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.empty()) {
    return std::nullopt;
  }
  const SlotId slot = free_.back();
  free_.pop_back();
  is_taken_[slot] = 1;
  return slot;
}

void SlotPool::give_back(SlotId slot) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (slot >= slot_count_ || is_taken_[slot] == 0) {
    throw InvalidHandleError("Slot " + std::to_string(slot) + " of " + std::to_string(slot_count_) + " is not taken");
  }
  is_taken_[slot] = 0;
  free_.push_back(slot);  // never beyond the capacity it was made with
}

std::uint32_t SlotPool::free_count() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<std::uint32_t>(free_.size());
}

}  // namespace tierpool
