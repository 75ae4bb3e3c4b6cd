#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tierpool/arena/buffer_pool_statistics.hpp"
#include "tierpool/arena/lease.hpp"
#include "tierpool/arena/size_classes.hpp"
#include "tierpool/pool/allocation.hpp"

namespace tierpool {

/// The buffers of one size. What belongs to the class but is not in `slots` is in quarantine or being prepared.
struct SlotClass {
  std::uint64_t class_bytes = 0;
  std::vector<std::uint32_t> slots;  ///< first the leased ones, then the free ones; has room for all of the class
  std::uint32_t in_use = 0;          ///< how many of `slots` are leased
  std::uint32_t slot_count = 0;
  std::uint64_t leases = 0;
  std::uint64_t fresh = 0;
  std::uint64_t requested_bytes = 0;  ///< over all leases
  std::uint64_t recent_fresh = 0;     ///< since the growth alarm saw an epoch without any

  [[nodiscard]] std::uint64_t free_count() const noexcept { return slots.size() - in_use; }
};

/// How many leases of one class took a buffer from the source.
struct FreshCount {
  std::uint64_t class_bytes = 0;
  std::uint64_t count = 0;
};

/// A request whose buffer is being prepared: taken from the free ones or new, and in no epoch yet.
struct PreparedSlot {
  std::uint64_t requested_bytes = 0;
  std::uint64_t class_bytes = 0;
  std::uint32_t slot = kNoSlot;
  bool fresh = false;
  std::uint64_t address = 0;  ///< of a buffer that is not fresh
  Allocation allocation{};    ///< of a fresh one, once the source gave it
};

/// The buffers of a pool, by class, and which of them are leased. Ending an epoch costs one store per class: the leased
/// buffers of a class are a prefix of its slots, and the prefix becomes empty.
///
/// Not thread-safe: guarded by its owner's lock.
class SlotTable {
 public:
  SlotTable(SizeClasses size_classes, std::uint32_t pool_id);

  /// Leases a free buffer of the request's class. False when there is none; nothing changes then.
  [[nodiscard]] bool try_lease(std::uint64_t bytes, Lease& lease) noexcept {
    return try_lease_from(find_class(bytes), bytes, lease);
  }
  /// The same for a buffer of exactly that many bytes.
  [[nodiscard]] bool try_lease_exact(std::uint64_t bytes, Lease& lease) noexcept {
    return try_lease_from(find_exact_class(bytes), bytes, lease);
  }
  /// One lease a size, or none at all.
  [[nodiscard]] bool try_lease_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases) noexcept;

  /// Takes a free buffer out for preparation or, with fresh set, makes room for a new one. Throws std::bad_alloc.
  void prepare(PreparedSlot& prepared, bool exact);
  void undo_prepare(PreparedSlot& prepared) noexcept;
  /// Leases what was prepared.
  void lease_prepared(const PreparedSlot& prepared, Lease& lease) noexcept;

  [[nodiscard]] bool is_live(const Lease& lease) const noexcept {
    if (lease.pool != pool_id_ || lease.serial <= epoch_start_serial_ || lease.slot >= slots_.size()) {
      return false;
    }
    const Slot& slot = slots_[lease.slot];
    const SlotClass& owner = classes_[slot.slot_class];
    // The position is only a hint: that of a buffer which is not leased may be anybody's by now.
    return slot.serial == lease.serial && slot.position < owner.in_use && owner.slots[slot.position] == lease.slot;
  }
  [[nodiscard]] LeaseState state_of(const Lease& lease) const noexcept;

  /// Of a live lease.
  [[nodiscard]] std::uint32_t& views(const Lease& lease) noexcept { return slots_[lease.slot].views; }
  /// Ends a live lease; its buffer is free.
  void release(const Lease& lease) noexcept {
    note_high_water();
    Slot& slot = slots_[lease.slot];
    SlotClass& owner = classes_[slot.slot_class];
    const std::uint32_t last_position = --owner.in_use;
    const std::uint32_t last = owner.slots[last_position];
    if (last != lease.slot) {
      owner.slots[slot.position] = last;
      slots_[last].position = slot.position;
      owner.slots[last_position] = lease.slot;
    }
    live_requested_bytes_ -= slot.requested_bytes;
    in_use_bytes_ -= owner.class_bytes;
  }
  /// Ends every lease; the buffers are free.
  void reset() noexcept;
  /// Ends every lease; appends the buffers to `quarantine` instead, which has room for in_use_count() of them.
  void reset_into(std::vector<std::uint32_t>& quarantine) noexcept;
  /// Makes buffers free that reset_into() put away.
  void end_quarantine(std::span<const std::uint32_t> slots) noexcept;

  /// Takes free buffers out for good, the largest that do not exceed `bytes` first, then the smallest; no more than fit
  /// into `dropped`. Lowers `bytes` by what they held, to 0 at least. Returns how many.
  [[nodiscard]] std::size_t drop_free(std::uint64_t& bytes, std::span<Allocation> dropped) noexcept;
  /// Takes out every buffer, leased or not, for an owner that goes.
  template <class Function>
  void drain(const Function& give_back) noexcept {
    for (const Allocation& allocation : std::exchange(allocations_, {})) {
      if (allocation) {
        give_back(allocation);
      }
    }
  }

  [[nodiscard]] std::uint64_t held_count() const noexcept { return held_count_; }
  [[nodiscard]] std::uint64_t held_bytes() const noexcept { return held_bytes_; }
  [[nodiscard]] std::uint64_t quarantined_count() const noexcept { return quarantined_count_; }
  [[nodiscard]] std::uint64_t quarantined_bytes() const noexcept { return quarantined_bytes_; }
  [[nodiscard]] std::uint64_t in_use_count() const noexcept;
  [[nodiscard]] std::uint64_t free_count() const noexcept;
  [[nodiscard]] std::uint64_t free_bytes() const noexcept;
  void add_to(BufferPoolStatistics& statistics) const;
  /// Every live lease with views.
  [[nodiscard]] std::vector<ViewedLease> viewed_leases() const;

  /// The classes with recent fresh leases, by number of these, most first.
  [[nodiscard]] std::vector<FreshCount> recent_fresh() const;
  [[nodiscard]] bool has_recent_fresh(std::uint32_t slot) const noexcept {
    return classes_[slots_[slot].slot_class].recent_fresh != 0;
  }
  void forget_recent_fresh() noexcept;

 private:
  /// Never has a buffer, so that a request without a class needs no test of its own.
  static constexpr std::uint32_t kEmptyClass = 0;

  struct Slot {
    std::uint64_t address = 0;
    std::uint64_t serial = 0;  // of its last lease
    std::uint64_t requested_bytes = 0;
    std::uint32_t slot_class = kEmptyClass;
    std::uint32_t position = 0;
    std::uint32_t views = 0;
  };

  [[nodiscard]] std::uint32_t find_class(std::uint64_t bytes) const noexcept {
    if (bytes > kMaxRequestBytes) {
      return kEmptyClass;
    }
    switch (size_classes_) {
      case SizeClasses::eighths:
        return numbered_[eighths_class(bytes).index];
      case SizeClasses::power_of_two:
        return numbered_[power_of_two_class(bytes).index];
      case SizeClasses::exact:
        break;
    }
    return find_exact_class(bytes);
  }
  [[nodiscard]] std::uint32_t find_exact_class(std::uint64_t bytes) const noexcept;
  [[nodiscard]] std::uint32_t make_class(std::uint64_t class_bytes, std::uint32_t& index);
  /// The class that serves a request, made when there is none. Throws std::bad_alloc.
  [[nodiscard]] std::uint32_t require_class(std::uint64_t bytes, bool exact);
  void remove_class_if_unused(std::uint32_t index) noexcept;

  [[nodiscard]] bool try_lease_from(std::uint32_t index, std::uint64_t bytes, Lease& lease) noexcept {
    SlotClass& owner = classes_[index];
    if (owner.in_use == owner.slots.size()) {
      return false;
    }
    hand_out(owner, bytes, ++last_serial_, lease);
    live_requested_bytes_ += bytes;
    in_use_bytes_ += owner.class_bytes;
    return true;
  }
  void hand_out(SlotClass& owner, std::uint64_t bytes, std::uint64_t serial, Lease& lease) noexcept {
    const std::uint32_t index = owner.slots[owner.in_use];
    Slot& slot = slots_[index];
    slot.serial = serial;
    slot.requested_bytes = bytes;
    slot.position = owner.in_use++;
    slot.views = 0;
    ++owner.leases;
    owner.requested_bytes += bytes;
    lease = {slot.address, bytes, owner.class_bytes, serial, index, pool_id_};
  }
  void undo_batch(std::span<const Lease> leases) noexcept;
  [[nodiscard]] std::uint32_t make_slot(std::uint32_t slot_class);
  [[nodiscard]] Allocation forget_slot(std::uint32_t slot) noexcept;
  [[nodiscard]] SlotClass* pick_class_to_drop(std::uint64_t bytes) noexcept;
  void note_high_water() noexcept { high_water_bytes_ = std::max(high_water_bytes_, in_use_bytes_); }
  void end_epoch() noexcept;

  const SizeClasses size_classes_;
  const std::uint32_t pool_id_;
  std::vector<SlotClass> classes_;
  std::vector<Slot> slots_;
  std::vector<Allocation> allocations_;                     // by slot; apart, because leasing does not read them
  std::array<std::uint32_t, kNumberedClasses> numbered_{};  // index into classes_
  std::unordered_map<std::uint64_t, std::uint32_t> exact_classes_;  // the same, by bytes
  std::vector<std::uint32_t> unused_classes_;
  std::vector<std::uint32_t> unused_slots_;  // has room for all slots
  SizeClassStatistics removed_classes_;      // events only
  std::uint64_t removed_leased_bytes_ = 0;

  std::uint64_t last_serial_ = 0;
  std::uint64_t epoch_start_serial_ = 0;  // leases up to this one are over
  std::uint64_t live_requested_bytes_ = 0;
  std::uint64_t in_use_bytes_ = 0;
  std::uint64_t high_water_bytes_ = 0;  // brought up to date before in_use_bytes_ falls
  std::uint64_t held_count_ = 0;
  std::uint64_t held_bytes_ = 0;
  std::uint64_t quarantined_count_ = 0;
  std::uint64_t quarantined_bytes_ = 0;
};

}  // namespace tierpool
