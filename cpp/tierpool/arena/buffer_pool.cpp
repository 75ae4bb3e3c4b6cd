#include "tierpool/arena/buffer_pool.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>
#include <set>
#include <stdexcept>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::size_t kDropChunk = 64;
constexpr std::size_t kNamedOrigins = 5;

std::uint32_t next_pool_id() noexcept {
  static std::atomic<std::uint32_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

BufferPoolConfig validated(const BufferPoolConfig& config, const Device& device) {
  config.validate(device);
  return config;
}

std::string describe(std::uint64_t bytes) {
  return std::to_string(bytes) + " bytes (" + format_memory_size(bytes) + ")";
}

}  // namespace

BufferPool::BufferPool(const BufferPoolConfig& config, std::shared_ptr<MemoryPool> source)
    : config_(validated(config, source->device())),
      source_(std::move(source)),
      fills_reused_(config.zero == ZeroPolicy::always || config.zero == ZeroPolicy::poison),
      residency_(config.pin_registered ? &PagePins::of_process() : nullptr),
      table_(config.size_classes, next_pool_id()),
      leases_directly_(!fills_reused_) {}

BufferPool::~BufferPool() {
  end_quarantine(true);
  table_.drain([this](const Allocation& allocation) { static_cast<void>(source_->release(allocation)); });
}

void BufferPool::after_fork_in_child() {
  if (!source_->device().survives_fork()) {
    closed_ = true;  // what is free here is memory of the parent's
    leases_directly_ = false;
  }
  lock_.unlock();
}

ReleaseOutcome BufferPool::release_locked(const Lease& lease) noexcept {
  if (!table_.is_live(lease)) {
    return table_.state_of(lease) == LeaseState::foreign ? ReleaseOutcome::foreign : ReleaseOutcome::stale;
  }
  if (const std::uint32_t views = table_.views(lease); views != 0) {
    if (config_.checked) {
      return ReleaseOutcome::has_views;
    }
    live_views_ -= views;
  }
  table_.release(lease);
  return ReleaseOutcome::released;
}

ReleaseOutcome BufferPool::release(const Lease& lease, bool& left) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  left = left || closed_;
  return release_locked(lease);
}

ReleaseOutcome BufferPool::release(const Lease& lease) noexcept {
  bool left = false;
  const ReleaseOutcome outcome = release(lease, left);
  if (left) {
    give_back_free();
  }
  return outcome;
}

std::uint64_t BufferPool::release_batch(std::span<const Lease> leases, bool& left) noexcept {
  std::uint64_t released = 0;
  const std::lock_guard<SpinLock> lock(lock_);
  // Last first: a batch's buffers then return to the order they were in, and each is the last of its class.
  for (std::size_t i = leases.size(); i-- > 0;) {
    released += release_locked(leases[i]) == ReleaseOutcome::released ? 1 : 0;
  }
  left = left || closed_;
  return released;
}

std::uint64_t BufferPool::release_batch(std::span<const Lease> leases) noexcept {
  bool left = false;
  const std::uint64_t released = release_batch(leases, left);
  if (left) {
    give_back_free();
  }
  return released;
}

std::string BufferPool::note_reset() noexcept {
  ++resets_;
  live_views_ = 0;
  const GrowthAlarm::EpochEnd end = alarm_.note_reset();
  if (end.quiet_again) {
    table_.forget_recent_fresh();
  }
  return end.warn ? growth_message() : std::string();
}

ResetOutcome BufferPool::reset() { return reset(nullptr); }

ResetOutcome BufferPool::reset(std::shared_ptr<CompletionEvent> after) {
  bool left = false;
  const ResetOutcome outcome = reset(std::move(after), left);
  if (left) {
    give_back_free();
  }
  return outcome;
}

void BufferPool::end_leases(std::shared_ptr<CompletionEvent>& after) {
  const std::uint64_t in_use_count = table_.in_use_count();
  if (after == nullptr || in_use_count == 0) {
    table_.reset();
    return;
  }
  std::vector<std::uint32_t> slots;
  slots.reserve(in_use_count);
  quarantine_.reserve();
  table_.reset_into(slots);
  quarantine_.add(std::move(after), std::move(slots));
}

ResetOutcome BufferPool::reset(std::shared_ptr<CompletionEvent> after, bool& left) {
  std::string warning;
  bool has_quarantine = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    if (refuses_reset()) {
      return ResetOutcome::live_views;
    }
    end_leases(after);
    warning = note_reset();
    left = left || closed_;
    has_quarantine = !quarantine_.empty();
  }
  if (has_quarantine) {
    end_quarantine(false, left);
  }
  if (!warning.empty()) {
    log(LogLevel::warning, warning);
  }
  return ResetOutcome::done;
}

bool BufferPool::end_quarantine(bool wait) noexcept {
  bool left = false;
  const bool ended_any = end_quarantine(wait, left);
  if (left) {
    give_back_free();
  }
  return ended_any;
}

bool BufferPool::end_quarantine(bool wait, bool& left) noexcept {
  bool ended_any = false;
  bool was_closed = false;
  for (std::uint64_t id = 0;;) {
    Quarantine::Batch batch;
    {
      const std::lock_guard<SpinLock> lock(lock_);
      batch = quarantine_.next(id);
      was_closed = closed_;
    }
    if (batch.event == nullptr) {
      break;
    }
    id = batch.id;
    if (wait) {
      batch.event->wait();
    }
    if (!batch.event->is_complete()) {
      continue;
    }
    const std::lock_guard<SpinLock> lock(lock_);
    batch = quarantine_.take(id);
    table_.end_quarantine(batch.slots);
    ended_any = ended_any || !batch.slots.empty();
  }
  left = left || (ended_any && was_closed);
  return ended_any;
}

BufferPool::GivenBack BufferPool::give_back(std::uint64_t bytes, std::uint64_t count) noexcept {
  GivenBack total;
  std::array<Allocation, kDropChunk> dropped;
  while (bytes != 0 && count != 0) {
    std::size_t dropped_count = 0;
    {
      const std::lock_guard<SpinLock> lock(lock_);
      const std::uint64_t held_before = table_.held_bytes();
      dropped_count = table_.drop_free(bytes, std::span(dropped).first(std::min<std::uint64_t>(count, kDropChunk)));
      total.bytes += held_before - table_.held_bytes();
    }
    if (dropped_count == 0) {
      break;
    }
    for (const Allocation& allocation : std::span(dropped).first(dropped_count)) {
      static_cast<void>(source_->release(allocation));
    }
    count -= dropped_count;
    total.count += dropped_count;
  }
  return total;
}

std::uint64_t BufferPool::trim(std::uint64_t bytes) noexcept {
  end_quarantine(false);
  return give_back(bytes).bytes;
}

void BufferPool::close() noexcept {
  {
    const std::lock_guard<SpinLock> lock(lock_);
    closed_ = true;
    leases_directly_ = false;
  }
  trim(UINT64_MAX);
  residency_.clear();
}

bool BufferPool::is_closed() const noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return closed_;
}

LeaseState BufferPool::state_of(const Lease& lease) const noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return table_.state_of(lease);
}

void BufferPool::require_live(const Lease& lease) const {
  const std::string what = "stale lease of " + describe(lease.requested_bytes);
  switch (state_of(lease)) {
    case LeaseState::live:
      return;
    case LeaseState::released:
      throw StaleBufferError(what + ": it was released; its memory may belong to another lease by now");
    case LeaseState::reset:
      throw StaleBufferError(what + ": the pool was reset since it was allocated; allocate again in every step");
    case LeaseState::foreign:
      throw StaleBufferError("foreign lease: another buffer pool gave it out");
  }
}

bool BufferPool::add_view(const Lease& lease) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  if (!table_.is_live(lease)) {
    return false;
  }
  ++table_.views(lease);
  ++live_views_;
  return true;
}

void BufferPool::remove_view(const Lease& lease) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  if (table_.is_live(lease) && table_.views(lease) != 0) {
    --table_.views(lease);
    --live_views_;
  }
}

void BufferPool::set_origin(const Lease& lease, std::string origin) {
  if (config_.track_origins) {
    const std::lock_guard<SpinLock> lock(lock_);
    if (table_.is_live(lease)) {
      origins_.insert_or_assign(lease.slot, std::move(origin));
    }
  }
}

std::vector<ViewedLease> BufferPool::live_views() const {
  const std::lock_guard<SpinLock> lock(lock_);
  std::vector<ViewedLease> viewed = table_.viewed_leases();
  for (ViewedLease& one : viewed) {
    if (const auto found = origins_.find(one.lease.slot); found != origins_.end()) {
      one.origin = found->second;
    }
  }
  return viewed;
}

std::string BufferPool::growth_message() const noexcept {
  try {
    std::set<std::string> origins;
    for (const auto& [slot, origin] : origins_) {
      if (origins.size() < kNamedOrigins && table_.has_recent_fresh(slot)) {
        origins.insert(origin);
      }
    }
    const std::vector<std::string> named(origins.begin(), origins.end());
    return alarm_.message(table_.recent_fresh(), named, config_.track_origins);
  } catch (const std::bad_alloc&) {
    return {};
  }
}

bool BufferPool::register_existing(std::uint64_t address, std::uint64_t bytes) {
  if (is_closed()) {
    throw PoolClosedError("cannot register memory: the buffer pool is closed; create a new BufferPool");
  }
  if (!source_->device().host_accessible()) {
    throw std::invalid_argument("cannot register host memory with a pool of device '" + source_->device().name() +
                                "': use a pool on the host");
  }
  return residency_.add(address, bytes);
}

std::uint64_t BufferPool::free_count() const noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return table_.free_count();
}

std::uint64_t BufferPool::free_bytes() const noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return table_.free_bytes();
}

std::uint64_t BufferPool::in_use_count() const noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return table_.in_use_count();
}

BufferPoolStatistics BufferPool::statistics() const {
  BufferPoolStatistics statistics;
  statistics.residency = residency_.statistics();
  const std::lock_guard<SpinLock> lock(lock_);
  table_.add_to(statistics);
  statistics.resets = resets_;
  statistics.live_views = live_views_;
  return statistics;
}

}  // namespace tierpool
