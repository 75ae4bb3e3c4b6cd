#include "tierpool/storage/expert_cache.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool {
namespace {

/// Counts a call that is under way, so that close() can wait for it. Made and destroyed with the lock held.
class ActiveCall {
 public:
  ActiveCall(std::uint32_t& count, const Condition& idle) noexcept : count_(count), idle_(idle) { ++count_; }
  ~ActiveCall() {
    if (--count_ == 0) {
      idle_->notify_all();
    }
  }
  ActiveCall(const ActiveCall&) = delete;
  ActiveCall& operator=(const ActiveCall&) = delete;

 private:
  std::uint32_t& count_;
  const Condition& idle_;
};

}  // namespace

ExpertCache::Lease::~Lease() {
  if (cache_ != nullptr) {
    cache_->release(*this);
  }
}

ExpertCache::ExpertCache(UnitLoader& loader, SlotPool& slots, SlotBinding& binding,
                         std::unique_ptr<EvictionPolicy> policy, const Clock& clock)
    : loader_(loader),
      slots_(slots),
      binding_(binding),
      clock_(clock),
      policy_(std::move(policy)),
      entries_(loader.units().unit_count()) {
  // A slot each at most, so that noting one never fails.
  loading_.reserve(slots.slot_count());
  resting_.reserve(slots.slot_count());
  occupied_.reserve(slots.slot_count());
}

ExpertCache::~ExpertCache() { close(); }

ExpertCache::Lease ExpertCache::acquire(std::span<const UnitId> requests) {
  loader_.reader().require_own_process();  // before the lock, which a thread of the parent may have held
  Lease lease;
  std::unique_lock<std::mutex> lock(mutex_);
  require_open();
  require_known(requests);
  const ActiveCall active(active_calls_, idle_);
  try {
    const std::vector<UnitId> units = count_requests(requests);
    begin_loads(units, lease, lock);
    for (const UnitId unit : units) {
      policy_->requested(unit);
    }
    make_readable(lease, lock);
  } catch (const ReadError&) {
    abandon_unshared(lease);
    unpin(lease);
    throw;
  } catch (...) {
    unpin(lease);  // under the lock still: without a call under way, the cache may be gone
    throw;
  }
  lease.cache_ = this;
  return lease;
}

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

std::uint32_t ExpertCache::prefetch(std::span<const UnitId> units) {
  loader_.reader().require_own_process();  // before the lock, which a thread of the parent may have held
  const std::lock_guard<std::mutex> lock(mutex_);
  return begin_prefetches(units);
}

std::uint32_t ExpertCache::preload(std::span<const UnitId> units) {
  loader_.reader().require_own_process();  // before the lock, which a thread of the parent may have held
  std::unique_lock<std::mutex> lock(mutex_);
  const std::uint32_t begun = begin_prefetches(units);
  const ActiveCall active(active_calls_, idle_);
  std::vector<std::pair<UnitId, ReadHandle>> reads;
  for (const UnitId unit : units) {
    if (entries_[unit].presence == Presence::loading) {
      reads.emplace_back(unit, entries_[unit].read);
    }
  }
  for (const auto& [unit, read] : reads) {
    lock.unlock();
    static_cast<void>(loader_.reader().wait(read));
    lock.lock();
    settle(unit, read);
    loader_.reader().require_complete(read);
  }
  return begun;
}

void ExpertCache::cancel() noexcept {
  if (loader_.reader().is_foreign_process()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  cancel_reads();
}

void ExpertCache::close() noexcept {
  if (loader_.reader().is_foreign_process()) {
    return;  // the lock may be held by a thread that is not here
  }
  std::unique_lock<std::mutex> lock(mutex_);
  if (std::exchange(closed_, true)) {
    return;
  }
  cancel_reads();
  idle_->wait(lock, [this] { return active_calls_ == 0; });
  while (!resting_.empty()) {
    wait_for_resting_slot(lock);
  }
  std::string failure;
  for (std::size_t i = occupied_.size(); i-- > 0;) {
    const UnitId unit = occupied_[i];
    try {
      if (entries_[unit].presence == Presence::shown) {
        binding_.unbind(unit);
      }
      slots_.give_back(entries_[unit].slot);
      forget(unit);
    } catch (const std::exception& error) {
      failure = error.what();  // its slot stays taken: something may still be seen through it
    }
  }
  lock.unlock();
  if (!failure.empty()) {
    log(LogLevel::error, "Closing the expert cache: " + failure);
  }
}

CacheStatistics ExpertCache::statistics() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return statistics_;
}

std::vector<UnitRequests> ExpertCache::unit_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<UnitRequests> requests(entries_.size());
  std::transform(entries_.begin(), entries_.end(), requests.begin(), [](const Entry& entry) { return entry.requests; });
  return requests;
}

std::vector<UnitId> ExpertCache::count_requests(std::span<const UnitId> requests) {
  settle_finished();
  ++call_number_;
  std::vector<UnitId> units;
  for (const UnitId unit : requests) {
    Entry& entry = entries_[unit];
    const bool is_hit = entry.presence == Presence::arrived || entry.presence == Presence::shown;
    const std::uint64_t bytes = loader_.units().unit_bytes(unit);
    ++statistics_.requests;
    statistics_.requested_bytes += bytes;
    statistics_.reused_bytes += is_hit ? bytes : 0;
    ++(is_hit ? statistics_.hits : statistics_.misses);
    ++(is_hit ? entry.requests.hits : entry.requests.misses);
    if (std::exchange(entry.last_call, call_number_) != call_number_) {
      units.push_back(unit);
    }
  }
  return units;
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

void ExpertCache::pin(UnitId unit, Lease& lease) {
  Entry& entry = entries_[unit];
  lease.pins_.push_back({unit, entry.load_number, entry.read});
  ++entry.pins;
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

void ExpertCache::require_open() const {
  if (closed_) {
    throw CancelledError("The expert cache is closed");
  }
}

void ExpertCache::require_known(std::span<const UnitId> units) const {
  for (const UnitId unit : units) {
    if (unit >= entries_.size()) {
      throw std::out_of_range("There is no unit " + std::to_string(unit) + ": there are " +
                              std::to_string(entries_.size()));
    }
  }
}

void ExpertCache::cancel_reads() noexcept {
  settle_finished();
  while (!loading_.empty()) {
    abandon(loading_.back());
  }
}

void ExpertCache::unpin(Lease& lease) noexcept {
  for (const Lease::Pin& pin : lease.pins_) {
    entries_[pin.unit].pins -= is_pinned_by(pin) ? 1 : 0;
  }
  lease.pins_.clear();
}

void ExpertCache::release(Lease& lease) noexcept {
  if (loader_.reader().is_foreign_process()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  unpin(lease);
}

}  // namespace tierpool
