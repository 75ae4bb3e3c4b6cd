// How units come into slots and leave them; the cache's lock is held in all of these.

#include <algorithm>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/storage/expert_cache.hpp"

namespace tierpool {

void ExpertCache::begin_loads(const std::vector<UnitId>& units, Lease& lease, std::unique_lock<std::mutex>& lock) {
  std::vector<UnitId> missing = units;
  lease.pins_.reserve(units.size());
  pin_present(missing, lease);
  make_room(missing, lease, lock);
  for (const UnitId unit : missing) {
    begin_load(unit, take_slot(), ReadPriority::demand);
    pin(unit, lease);
  }
}

std::uint32_t ExpertCache::begin_prefetches(std::span<const UnitId> units) {
  require_open();
  require_known(units);
  settle_finished();
  std::uint32_t begun = 0;
  for (const UnitId unit : units) {
    if (entries_[unit].presence != Presence::absent) {
      continue;
    }
    const std::optional<SlotId> slot = slots_.take();
    if (!slot) {
      break;
    }
    begin_load(unit, *slot, ReadPriority::prefetch);
    ++statistics_.prefetches;
    ++begun;
  }
  return begun;
}

/// Pins those that are in slots already, or on their way there, and takes them off the list.
void ExpertCache::pin_present(std::vector<UnitId>& units, Lease& lease) {
  const auto is_present = [&](UnitId unit) {
    const Entry& entry = entries_[unit];
    if (entry.presence == Presence::absent) {
      return false;
    }
    if (entry.presence == Presence::loading) {
      loader_.reader().join(entry.read, ReadPriority::demand);
    }
    policy_->requested(unit);  // begin_load() tells it of the others
    pin(unit, lease);
    return true;
  };
  units.erase(std::remove_if(units.begin(), units.end(), is_present), units.end());
}

/// Returns when there is a slot for every missing unit; by then others may have fetched some of them.
void ExpertCache::make_room(std::vector<UnitId>& missing, Lease& lease, std::unique_lock<std::mutex>& lock) {
  while (missing.size() > slots_.free_count() && missing.size() > slots_.free_count() + count_evictable()) {
    const auto unclaimed =
        std::find_if(loading_.rbegin(), loading_.rend(), [this](UnitId unit) { return entries_[unit].pins == 0; });
    if (unclaimed != loading_.rend()) {
      abandon(*unclaimed);
    }
    if (resting_.empty()) {
      throw BudgetError(std::to_string(missing.size() + lease.pins_.size()) + " units are needed at once, but of the " +
                        std::to_string(slots_.slot_count()) + " slots only " +
                        std::to_string(slots_.free_count() + count_evictable()) + " can take one of the " +
                        std::to_string(missing.size()) + " that are missing: use more slots, or smaller batches");
    }
    wait_for_resting_slot(lock);
    require_open();
    pin_present(missing, lease);
  }
}

/// Gives up a unit on its way. Its slot is at rest only when no thread writes to it any more.
void ExpertCache::abandon(UnitId unit) noexcept {
  Entry& entry = entries_[unit];
  loader_.reader().cancel(entry.read);
  resting_.push_back({entry.slot, std::move(entry.read)});
  loading_.erase(std::find(loading_.begin(), loading_.end(), unit));
  forget(unit);
}

/// Gives up what nobody else waits for: what ails the disk may meet these reads too, and be over at the next call.
void ExpertCache::abandon_unshared(const Lease& lease) noexcept {
  for (const Lease::Pin& pin : lease.pins_) {
    if (is_pinned_by(pin) && entries_[pin.unit].presence == Presence::loading && entries_[pin.unit].pins == 1) {
      abandon(pin.unit);
    }
  }
}

void ExpertCache::wait_for_resting_slot(std::unique_lock<std::mutex>& lock) {
  const ReadHandle read = resting_.front().read;
  lock.unlock();
  static_cast<void>(loader_.reader().wait(read));
  lock.lock();
  settle_finished();
}

/// Waits for what is on its way and shows each unit as it arrives.
void ExpertCache::make_readable(Lease& lease, std::unique_lock<std::mutex>& lock) {
  for (Lease::Pin& pin : lease.pins_) {
    if (pin.read != nullptr) {
      const ReadHandle read = pin.read;
      const std::uint64_t began_ns = clock_.now_ns();
      lock.unlock();
      static_cast<void>(loader_.reader().wait(read));
      lock.lock();
      const std::uint64_t stall_ns = clock_.now_ns() - began_ns;
      statistics_.stall_ns += stall_ns;
      entries_[pin.unit].requests.stall_ns += stall_ns;
      settle(pin.unit, read);
      loader_.reader().require_complete(read);
      pin.read = nullptr;
    }
    Entry& entry = entries_[pin.unit];
    if (!is_pinned_by(pin)) {
      // A read that was given up too late to be stopped: it is complete, but its slot is no longer the unit's.
      throw CancelledError("The read was cancelled");
    }
    if (entry.presence == Presence::arrived) {
      binding_.bind(pin.unit, entry.slot);
      entry.presence = Presence::shown;
    }
  }
}

void ExpertCache::begin_load(UnitId unit, SlotId slot, ReadPriority priority) {
  Entry& entry = entries_[unit];
  try {
    entry.read = loader_.load(unit, slot, priority);
  } catch (...) {
    slots_.give_back(slot);
    throw;
  }
  entry.presence = Presence::loading;
  entry.slot = slot;
  entry.pins = 0;
  ++entry.load_number;
  loading_.push_back(unit);
  occupied_.push_back(unit);
  ++statistics_.loads;
  if (priority == ReadPriority::prefetch) {
    policy_->prefetched(unit);
  } else {
    policy_->requested(unit);
  }
}

/// A slot that nothing shows and nothing writes to; make_room() has seen to it that there is one.
SlotId ExpertCache::take_slot() {
  if (const std::optional<SlotId> slot = slots_.take()) {
    return *slot;
  }
  const std::optional<UnitId> victim = policy_->victim([this](UnitId unit) { return may_go(unit); });
  if (!victim || !may_go(*victim)) {
    throw Error("The eviction policy names no unit that may be given up, though there is one");
  }
  if (entries_[*victim].presence == Presence::shown) {
    binding_.unbind(*victim);
  }
  ++statistics_.evictions;
  const SlotId slot = entries_[*victim].slot;
  forget(*victim);
  return slot;
}

bool ExpertCache::may_go(UnitId unit) const noexcept {
  const Entry& entry = entries_[unit];
  return entry.pins == 0 && (entry.presence == Presence::arrived || entry.presence == Presence::shown);
}

std::uint64_t ExpertCache::count_evictable() const noexcept {
  return static_cast<std::uint64_t>(
      std::count_if(occupied_.begin(), occupied_.end(), [this](UnitId unit) { return may_go(unit); }));
}

/// Takes note of how a read ended that has ended, unless someone else did.
void ExpertCache::settle(UnitId unit, const ReadHandle& read) {
  Entry& entry = entries_[unit];
  if (entry.presence != Presence::loading || entry.read != read) {
    return;
  }
  entry.read = nullptr;
  loading_.erase(std::find(loading_.begin(), loading_.end(), unit));
  if (loader_.reader().wait(read) == ReadOutcome::complete) {
    entry.presence = Presence::arrived;
    const std::uint64_t bytes = loader_.units().unit_bytes(unit);
    statistics_.read_bytes += bytes;
    entry.requests.read_bytes += bytes;
  } else {
    slots_.give_back(entry.slot);
    forget(unit);
  }
}

void ExpertCache::settle_finished() {
  for (std::size_t i = loading_.size(); i-- > 0;) {
    const UnitId unit = loading_[i];
    const ReadHandle read = entries_[unit].read;
    if (loader_.reader().is_finished(read)) {
      settle(unit, read);
    }
  }
  for (std::size_t i = resting_.size(); i-- > 0;) {
    if (loader_.reader().is_finished(resting_[i].read)) {
      slots_.give_back(resting_[i].slot);
      resting_.erase(resting_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

/// Forgets that a unit is in a slot, along with the pins of those who wait for it in vain.
void ExpertCache::forget(UnitId unit) {
  Entry& entry = entries_[unit];
  entry.presence = Presence::absent;
  entry.pins = 0;
  occupied_.erase(std::find(occupied_.begin(), occupied_.end(), unit));
  policy_->removed(unit);
}

}  // namespace tierpool
