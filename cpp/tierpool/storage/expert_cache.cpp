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
    begin_loads(count_requests(requests), lease, lock);
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

void ExpertCache::pin(UnitId unit, Lease& lease) {
  Entry& entry = entries_[unit];
  lease.pins_.push_back({unit, entry.load_number, entry.read});
  ++entry.pins;
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
