#include "tierpool/arena/slot_table.hpp"

#include <new>

namespace tierpool {
namespace {

/// Room for `count` elements, grown geometrically.
template <class Element>
void make_room(std::vector<Element>& elements, std::size_t count) {
  if (elements.capacity() < count) {
    elements.reserve(std::max<std::size_t>({count, 2 * elements.capacity(), 8}));
  }
}

}  // namespace

SlotTable::SlotTable(SizeClasses size_classes, std::uint32_t pool_id)
    : size_classes_(size_classes), pool_id_(pool_id), classes_(kEmptyClass + 1) {}

bool SlotTable::try_lease_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases) noexcept {
  std::uint64_t serial = last_serial_;
  std::uint64_t requested_bytes = 0;
  std::uint64_t class_bytes = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    SlotClass& owner = classes_[find_class(sizes[i])];
    if (owner.in_use == owner.slots.size()) {
      undo_batch(leases.first(i));
      return false;
    }
    hand_out(owner, sizes[i], ++serial, leases[i]);
    requested_bytes += sizes[i];
    class_bytes += owner.class_bytes;
  }
  last_serial_ = serial;
  live_requested_bytes_ += requested_bytes;
  in_use_bytes_ += class_bytes;
  return true;
}

void SlotTable::undo_batch(std::span<const Lease> leases) noexcept {
  for (std::size_t i = leases.size(); i-- > 0;) {
    Slot& slot = slots_[leases[i].slot];
    SlotClass& owner = classes_[slot.slot_class];
    slot.serial = 0;  // its serial is given out again
    --owner.in_use;
    --owner.leases;
    owner.requested_bytes -= leases[i].requested_bytes;
  }
}

std::uint32_t SlotTable::find_exact_class(std::uint64_t bytes) const noexcept {
  if (size_classes_ != SizeClasses::exact && bytes <= kMaxRequestBytes &&
      class_bytes_for(size_classes_, bytes) == bytes) {
    return find_class(bytes);
  }
  const auto found = exact_classes_.find(bytes);
  return found == exact_classes_.end() ? kEmptyClass : found->second;
}

std::uint32_t SlotTable::make_class(std::uint64_t class_bytes, std::uint32_t& index) {
  if (unused_classes_.empty()) {
    make_room(unused_classes_, classes_.size() + 1);
    classes_.emplace_back();
    index = static_cast<std::uint32_t>(classes_.size() - 1);
  } else {
    index = unused_classes_.back();
    unused_classes_.pop_back();
  }
  classes_[index].class_bytes = class_bytes;
  return index;
}

std::uint32_t SlotTable::require_class(std::uint64_t bytes, bool exact) {
  const std::uint32_t found = exact ? find_exact_class(bytes) : find_class(bytes);
  if (found != kEmptyClass) {
    return found;
  }
  const bool numbered =
      size_classes_ != SizeClasses::exact && (!exact || class_bytes_for(size_classes_, bytes) == bytes);
  if (numbered) {
    const NumberedClass by_number =
        size_classes_ == SizeClasses::eighths ? eighths_class(bytes) : power_of_two_class(bytes);
    return make_class(by_number.bytes, numbered_[by_number.index]);
  }
  const auto entry = exact_classes_.emplace(bytes, kEmptyClass).first;
  return make_class(bytes, entry->second);
}

void SlotTable::remove_class_if_unused(std::uint32_t index) noexcept {
  SlotClass& owner = classes_[index];
  const auto found = exact_classes_.find(owner.class_bytes);
  if (owner.slot_count != 0 || found == exact_classes_.end() || found->second != index) {
    return;
  }
  // There is no end of exact sizes: one that is no longer held leaves only its share of the totals.
  removed_classes_.fresh += owner.fresh;
  removed_classes_.reused += owner.leases - owner.fresh;
  removed_classes_.requested_bytes += owner.requested_bytes;
  removed_leased_bytes_ += owner.leases * owner.class_bytes;
  exact_classes_.erase(found);
  owner = SlotClass{};
  unused_classes_.push_back(index);  // make_class() reserved the room
}

std::uint32_t SlotTable::make_slot(std::uint32_t slot_class) {
  SlotClass& owner = classes_[slot_class];
  make_room(owner.slots, owner.slot_count + std::size_t{1});
  std::uint32_t slot = kNoSlot;
  if (unused_slots_.empty()) {
    if (slots_.size() >= kNoSlot) {
      throw std::bad_alloc();
    }
    make_room(unused_slots_, slots_.size() + 1);
    make_room(allocations_, slots_.size() + 1);
    slot = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
    allocations_.emplace_back();
  } else {
    slot = unused_slots_.back();
    unused_slots_.pop_back();
  }
  slots_[slot].slot_class = slot_class;
  ++owner.slot_count;
  ++held_count_;
  held_bytes_ += owner.class_bytes;
  return slot;
}

Allocation SlotTable::forget_slot(std::uint32_t slot) noexcept {
  const std::uint32_t slot_class = slots_[slot].slot_class;
  SlotClass& owner = classes_[slot_class];
  --owner.slot_count;
  --held_count_;
  held_bytes_ -= owner.class_bytes;
  slots_[slot] = Slot{};
  unused_slots_.push_back(slot);
  remove_class_if_unused(slot_class);
  return std::exchange(allocations_[slot], Allocation{});
}

void SlotTable::prepare(PreparedSlot& prepared, bool exact) {
  const std::uint32_t slot_class = require_class(prepared.requested_bytes, exact);
  SlotClass& owner = classes_[slot_class];
  prepared.class_bytes = owner.class_bytes;
  prepared.fresh = owner.free_count() == 0;
  if (prepared.fresh) {
    prepared.slot = make_slot(slot_class);
    return;
  }
  prepared.slot = std::exchange(owner.slots[owner.in_use], owner.slots.back());
  owner.slots.pop_back();
  prepared.address = slots_[prepared.slot].address;
}

void SlotTable::undo_prepare(PreparedSlot& prepared) noexcept {
  const std::uint32_t slot = std::exchange(prepared.slot, kNoSlot);
  if (slot == kNoSlot) {
    return;
  }
  if (prepared.fresh) {
    static_cast<void>(forget_slot(slot));
  } else {
    classes_[slots_[slot].slot_class].slots.push_back(slot);
  }
}

void SlotTable::lease_prepared(const PreparedSlot& prepared, Lease& lease) noexcept {
  Slot& slot = slots_[prepared.slot];
  SlotClass& owner = classes_[slot.slot_class];
  if (prepared.fresh) {
    slot.address = prepared.allocation.address;
    allocations_[prepared.slot] = prepared.allocation;
    ++owner.fresh;
    ++owner.recent_fresh;
  }
  owner.slots.push_back(prepared.slot);
  std::swap(owner.slots[owner.in_use], owner.slots.back());
  hand_out(owner, prepared.requested_bytes, ++last_serial_, lease);
  live_requested_bytes_ += prepared.requested_bytes;
  in_use_bytes_ += owner.class_bytes;
}

LeaseState SlotTable::state_of(const Lease& lease) const noexcept {
  if (lease.pool != pool_id_ || lease.serial == 0 || lease.serial > last_serial_ || lease.slot >= slots_.size()) {
    return LeaseState::foreign;
  }
  if (is_live(lease)) {
    return LeaseState::live;
  }
  return lease.serial <= epoch_start_serial_ ? LeaseState::reset : LeaseState::released;
}

void SlotTable::end_epoch() noexcept {
  note_high_water();
  live_requested_bytes_ = 0;
  in_use_bytes_ = 0;
  epoch_start_serial_ = last_serial_;
}

void SlotTable::reset() noexcept {
  for (SlotClass& owner : classes_) {
    owner.in_use = 0;
  }
  end_epoch();
}

void SlotTable::reset_into(std::vector<std::uint32_t>& quarantine) noexcept {
  for (SlotClass& owner : classes_) {
    const auto end = owner.slots.begin() + owner.in_use;
    quarantine.insert(quarantine.end(), owner.slots.begin(), end);
    owner.slots.erase(owner.slots.begin(), end);
    quarantined_count_ += owner.in_use;
    quarantined_bytes_ += owner.in_use * owner.class_bytes;
    owner.in_use = 0;
  }
  end_epoch();
}

void SlotTable::end_quarantine(std::span<const std::uint32_t> slots) noexcept {
  for (const std::uint32_t slot : slots) {
    SlotClass& owner = classes_[slots_[slot].slot_class];
    owner.slots.push_back(slot);
    --quarantined_count_;
    quarantined_bytes_ -= owner.class_bytes;
  }
}

SlotClass* SlotTable::pick_class_to_drop(std::uint64_t bytes) noexcept {
  SlotClass* largest_within = nullptr;
  SlotClass* smallest_above = nullptr;
  for (SlotClass& owner : classes_) {
    if (owner.free_count() == 0) {
      continue;
    }
    if (owner.class_bytes <= bytes) {
      if (largest_within == nullptr || owner.class_bytes > largest_within->class_bytes) {
        largest_within = &owner;
      }
    } else if (smallest_above == nullptr || owner.class_bytes < smallest_above->class_bytes) {
      smallest_above = &owner;
    }
  }
  return largest_within != nullptr ? largest_within : smallest_above;
}

std::size_t SlotTable::drop_free(std::uint64_t& bytes, std::span<Allocation> dropped) noexcept {
  std::size_t count = 0;
  while (bytes != 0 && count < dropped.size()) {
    SlotClass* const owner = pick_class_to_drop(bytes);
    if (owner == nullptr) {
      break;
    }
    const std::uint64_t class_bytes = owner->class_bytes;
    const auto wanted = std::max<std::uint64_t>(bytes / std::max<std::uint64_t>(class_bytes, 1), 1);
    const auto taken = std::min<std::uint64_t>({wanted, owner->free_count(), dropped.size() - count});
    for (std::uint64_t i = 0; i < taken; ++i) {
      const std::uint32_t slot = owner->slots.back();
      owner->slots.pop_back();
      dropped[count++] = forget_slot(slot);
    }
    bytes -= std::min(bytes, taken * class_bytes);
  }
  return count;
}

std::uint64_t SlotTable::in_use_count() const noexcept {
  std::uint64_t count = 0;
  for (const SlotClass& owner : classes_) {
    count += owner.in_use;
  }
  return count;
}

std::uint64_t SlotTable::free_count() const noexcept {
  std::uint64_t count = 0;
  for (const SlotClass& owner : classes_) {
    count += owner.free_count();
  }
  return count;
}

std::uint64_t SlotTable::free_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const SlotClass& owner : classes_) {
    bytes += owner.free_count() * owner.class_bytes;
  }
  return bytes;
}

void SlotTable::add_to(BufferPoolStatistics& statistics) const {
  statistics.fresh = removed_classes_.fresh;
  statistics.reused = removed_classes_.reused;
  statistics.requested_bytes = removed_classes_.requested_bytes;
  statistics.leased_bytes = removed_leased_bytes_;
  for (const SlotClass& owner : classes_) {
    if (owner.slot_count == 0 && owner.leases == 0) {
      continue;
    }
    const SizeClassStatistics one{owner.class_bytes,          owner.in_use,         owner.free_count(), owner.fresh,
                                  owner.leases - owner.fresh, owner.requested_bytes};
    statistics.fresh += one.fresh;
    statistics.reused += one.reused;
    statistics.requested_bytes += one.requested_bytes;
    statistics.leased_bytes += one.leases() * one.class_bytes;
    statistics.in_use_count += one.in_use_count;
    statistics.free_count += one.free_count;
    statistics.free_bytes += one.free_count * one.class_bytes;
    statistics.classes.push_back(one);
  }
  std::sort(statistics.classes.begin(), statistics.classes.end(),
            [](const auto& left, const auto& right) { return left.class_bytes < right.class_bytes; });
  statistics.in_use_bytes = in_use_bytes_;
  statistics.live_requested_bytes = live_requested_bytes_;
  statistics.high_water_bytes = std::max(high_water_bytes_, in_use_bytes_);
  statistics.quarantined_count = quarantined_count_;
  statistics.quarantined_bytes = quarantined_bytes_;
  statistics.held_count = held_count_;
  statistics.held_bytes = held_bytes_;
}

std::vector<ViewedLease> SlotTable::viewed_leases() const {
  std::vector<ViewedLease> viewed;
  for (const SlotClass& owner : classes_) {
    for (std::uint32_t position = 0; position < owner.in_use; ++position) {
      const std::uint32_t index = owner.slots[position];
      const Slot& slot = slots_[index];
      if (slot.views != 0) {
        const Lease lease{slot.address, slot.requested_bytes, owner.class_bytes, slot.serial, index, pool_id_};
        viewed.push_back({lease, slot.views, {}});
      }
    }
  }
  return viewed;
}

std::vector<FreshCount> SlotTable::recent_fresh() const {
  std::vector<FreshCount> recent;
  for (const SlotClass& owner : classes_) {
    if (owner.recent_fresh != 0) {
      recent.push_back({owner.class_bytes, owner.recent_fresh});
    }
  }
  std::sort(recent.begin(), recent.end(), [](const auto& left, const auto& right) { return left.count > right.count; });
  return recent;
}

void SlotTable::forget_recent_fresh() noexcept {
  for (SlotClass& owner : classes_) {
    owner.recent_fresh = 0;
  }
}

}  // namespace tierpool
