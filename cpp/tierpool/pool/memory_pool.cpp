#include "tierpool/pool/memory_pool.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <thread>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"
#include "tierpool/pool/out_of_memory.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kWarmupStepBytes = 64 * kMiB;

constexpr std::uint64_t kNoThreadCache = std::uint64_t{1} << 63;

MagazineLimits magazine_limits(const PoolConfig& config) {
  const std::uint64_t capacity_bytes = config.heap_size_bytes * config.num_heaps;
  const std::uint64_t total_bytes = config.magazine_total_bytes.value_or(capacity_bytes);
  return {config.magazine_thread_bytes.value_or(total_bytes), total_bytes};
}

/// Nothing but magazines sees an allocation come and go.
bool is_plain(const PoolConfig& config) {
  return config.enabled && config.magazines && !config.track_origins && !config.max_bytes && OwnerLock::is_fast();
}

PoolConfig validated(const PoolConfig& config, const Device& device) {
  config.validate(device);
  return config;
}

/// Makes the epoch odd for as long as it lives.
class Trimming {
 public:
  explicit Trimming(std::atomic<std::uint64_t>& epoch) noexcept : epoch_(epoch) { epoch_.fetch_add(1); }
  ~Trimming() { epoch_.fetch_add(1); }
  Trimming(const Trimming&) = delete;
  Trimming& operator=(const Trimming&) = delete;

 private:
  std::atomic<std::uint64_t>& epoch_;
};

[[noreturn]] void throw_not_built(const PoolConfig& config, const Device& device, const std::exception& reason) {
  throw InitializationError(std::to_string(config.num_heaps) + " heaps of " +
                            format_memory_size(config.heap_size_bytes) + " on device '" + device.name() +
                            "': " + reason.what() + "; reduce num_heaps, heap_size_mb or warmup_sizes");
}

/// What heaps of a lane may commit together with those of the others; one lane alone cannot exceed it.
std::optional<std::uint64_t> commit_limit_bytes(const PoolConfig& config, Device& device) {
  if (device.streams() == nullptr || device.host_accessible()) {
    return std::nullopt;
  }
  return align_up(config.heap_size_bytes, device.granularity_bytes()) * config.num_heaps;
}

std::vector<std::unique_ptr<Heap>> make_heaps(const PoolConfig& config, Device& device, StreamLanes& lanes,
                                              bool is_home, const std::function<bool()>& await_streams) {
  std::vector<std::unique_ptr<Heap>> heaps;
  if (!config.enabled || (!is_home && device.commit_scope() == CommitScope::always)) {
    return heaps;  // the home lane's reservations hold all that the lanes may commit
  }
  const std::uint64_t capacity_bytes = align_up(config.heap_size_bytes, kUnitBytes);
  try {
    heaps.reserve(config.num_heaps);
    for (std::uint32_t index = 0; index < config.num_heaps; ++index) {
      const Heap::Options options{index,         capacity_bytes, config.placement, &lanes.commit_limit,
                                  &lanes.memory, await_streams};
      heaps.push_back(std::make_unique<Heap>(device, lanes.used, options));
    }
  } catch (const std::exception& error) {
    throw_not_built(config, device, error);
  }
  return heaps;
}

}  // namespace

MemoryPool::MemoryPool(const PoolConfig& config, std::shared_ptr<Device> device, std::shared_ptr<StreamLanes> lanes,
                       const StreamKey& stream)
    : config_(validated(config, *device)),
      device_(std::move(device)),
      heap_size_bytes_(align_up(config.heap_size_bytes, kUnitBytes)),
      has_streams_(device_->streams() != nullptr),
      is_stream_ordered_(has_streams_ && !device_->host_accessible()),
      lanes_(lanes ? std::move(lanes)
                   : std::make_shared<StreamLanes>(*this, *device_, config_.max_bytes,
                                                   commit_limit_bytes(config_, *device_))),
      stream_(stream),
      heaps_(make_heaps(config_, *device_, *lanes_, is_home(), await_streams())),
      heap_count_(static_cast<std::uint32_t>(heaps_.size())),
      layout_(std::min(config_.exact_above_bytes, heap_size_bytes_)),
      caches_(layout_, magazine_limits(config_), heaps_.size(),
              [this](std::span<const ParkedBlock> blocks) { give_back(blocks); }),
      has_only_heap_(heap_count_ == 1 && !config_.magazines && !config_.max_bytes && config_.enabled),
      fast_id_(is_plain(config_) ? caches_.id() : kNoThreadCache),
      fallbacks_(*device_, config.track_statistics, lanes_->memory, lanes_->taken),
      limit_(lanes_->limit),
      tail_(lanes_->events),
      origins_(config_.track_origins),
      log_(config_.log_exhaustion && config_.enabled),
      baselines_(heaps_.size()),
      pending_(heaps_.size()),
      fork_handler_(
          ForkHandler::Rank::pool, [this] { before_fork(); }, [this] { after_fork_in_parent(); },
          [this] { after_fork_in_child(); }) {
  if (heaps_.empty() || config_.warmup_bytes.empty()) {
    return;
  }
  try {
    warm_up(config_.warmup_bytes, nullptr, config_.warmup_is_default);
  } catch (const std::exception& error) {
    throw_not_built(config_, *device_, error);
  }
}

MemoryPool::~MemoryPool() {
  for (const auto& heap : heaps_) {
    heap->close();  // once more, while there is someone to ask for its streams
  }
}

std::shared_ptr<MemoryPool> MemoryPool::create(const PoolConfig& config, std::shared_ptr<Device> device) {
  const bool is_host_ordered = device->streams() == nullptr || device->host_accessible();
  const StreamKey stream = is_host_ordered ? kHostOrder : StreamKey{};
  try {
    return own(new MemoryPool(config, std::move(device), nullptr, stream));
  } catch (const InitializationError&) {
    // Here and not where it is thrown: a lane is made on the way of an allocation, which may have to be silent.
    PoolLog::creation_failed();
    throw;
  }
}

std::function<bool()> MemoryPool::await_streams() {
  if (!is_stream_ordered_) {
    return nullptr;  // the heap waits for the device: copies may run of what came back without a stream's name
  }
  return [this] { return has_finished_stream({}); };
}

std::shared_ptr<MemoryPool> MemoryPool::own(MemoryPool* pool) {
  return {pool, [](MemoryPool* owned) { owned->abandon(); }};
}

void MemoryPool::abandon() noexcept {
  closed_.store(true, std::memory_order_release);
  if (is_home()) {
    lanes_->end();
  }
  caches_.disable();  // from here on every release finds its way to a heap
  static_cast<void>(complete_pending(Completion::closing));
  const std::uint64_t kept_bytes = pending_bytes();
  std::uint64_t live = fallbacks_.orphan();
  for (const auto& heap : heaps_) {
    live += heap->orphan();
  }
  wait_for_late_ends();
  // A release that was counted may have taken its reference back already; kOwned keeps the sum above zero until here.
  remove_reference(kOwned - live);
  if (kept_bytes != 0) {
    PoolLog::memory_kept(kept_bytes);
  }
}

void MemoryPool::remove_reference(std::uint64_t references) noexcept {
  if (references_.fetch_sub(references, std::memory_order_acq_rel) == references) {
    delete this;
  }
}

void MemoryPool::wait_for_late_ends() const noexcept {
  while (late_ends_.load(std::memory_order_acquire) != 0) {
    std::this_thread::yield();
  }
}

void MemoryPool::before_fork() {
  trim_mutex_.lock();
  caches_.before_fork();
  for (const auto& heap : heaps_) {
    heap->lock_commits();
  }
  for (const auto& heap : heaps_) {
    heap->lock();
  }
  fallbacks_.lock();
  recorded_.lock();
  tail_.lock();
  origins_.lock();
}

void MemoryPool::unlock_after_fork() {
  origins_.unlock();
  tail_.unlock();
  recorded_.unlock();
  fallbacks_.unlock();
  for (const auto& heap : heaps_) {
    heap->unlock();
    heap->unlock_commits();
  }
}

void MemoryPool::after_fork_in_parent() {
  unlock_after_fork();
  caches_.after_fork_in_parent();
  trim_mutex_.unlock();
}

void MemoryPool::after_fork_in_child() {
  unlock_after_fork();
  late_ends_.store(0, std::memory_order_relaxed);  // their threads did not come along
  caches_.after_fork_in_child();
  trim_mutex_.unlock();
  if (!device_->survives_fork()) {
    // Without magazines every request takes the slow way, which asks.
    lost_device_ = true;
    closed_.store(true, std::memory_order_release);
    caches_.disable();
  }
}

void MemoryPool::require_device(std::string_view what) const {
  if (lost_device_) {
    throw DeviceError("Cannot " + std::string(what) + ": device '" + device_->name() +
                      "' cannot be used in a forked child; start processes that use it by spawn or forkserver");
  }
}

void MemoryPool::check_alignment(std::uint64_t alignment_bytes) const {
  const std::uint64_t limit = std::min(device_->max_alignment_bytes(), device_->granularity_bytes());
  if (!is_power_of_two(alignment_bytes) || alignment_bytes > limit) {
    throw std::invalid_argument("alignment must be a power of two up to " + std::to_string(limit) + ", got " +
                                std::to_string(alignment_bytes) + "; 256 is the default");
  }
}

void MemoryPool::throw_failure(AllocationOutcome outcome, std::uint64_t bytes) const {
  if (outcome == AllocationOutcome::closed) {
    require_device("allocate " + std::to_string(bytes) + " bytes");
    throw PoolClosedError("cannot allocate " + std::to_string(bytes) +
                          " bytes: the pool is closed; create a new MemoryPool");
  }
  const bool lacks_heaps = config_.enabled && heaps_.empty() && config_.on_exhaustion == OnExhaustion::raise;
  Shortage shortage = lacks_heaps ? Shortage::heaps : Shortage::memory;
  if (outcome == AllocationOutcome::over_limit) {
    shortage = Shortage::limit;
  }
  throw out_of_memory_error(bytes, shortage, lanes_->home().statistics(), config_, *device_);
}

Allocation MemoryPool::allocate(std::uint64_t bytes, std::uint64_t alignment_bytes) {
  check_alignment(alignment_bytes);
  Allocation allocation;
  const AllocationOutcome outcome = serve({.bytes = bytes, .alignment_bytes = alignment_bytes}, allocation);
  if (outcome != AllocationOutcome::served) {
    throw_failure(outcome, bytes);
  }
  return allocation;
}

std::optional<Allocation> MemoryPool::try_allocate(std::uint64_t bytes, std::uint64_t alignment_bytes) {
  check_alignment(alignment_bytes);
  Allocation allocation;
  const AllocationOutcome outcome =
      serve({.bytes = bytes, .alignment_bytes = alignment_bytes, .heaps_only = true}, allocation);
  if (outcome == AllocationOutcome::closed) {
    throw_failure(outcome, bytes);
  }
  return outcome == AllocationOutcome::served ? std::optional(allocation) : std::nullopt;
}

std::uint64_t MemoryPool::warm_bytes_per_heap(std::span<const std::uint64_t> sizes_bytes, bool are_default) const {
  std::uint64_t together = 0;
  std::uint64_t largest = 0;
  for (const std::uint64_t bytes : sizes_bytes) {
    if (bytes > heap_size_bytes_) {
      PoolLog::warmup_size_skipped(bytes, heap_size_bytes_, are_default);
      continue;
    }
    largest = std::max(largest, bytes);
    const std::uint64_t block_bytes = block_bytes_for(bytes);
    if (block_bytes <= heap_size_bytes_ - together) {
      together += block_bytes;
    }
  }
  return std::max(together, largest);
}

WarmupReport MemoryPool::warm_up(std::span<const std::uint64_t> sizes_bytes, const WarmupProgress& progress,
                                 bool sizes_are_default) {
  if (is_closed()) {
    require_device("warm up");
    throw PoolClosedError("cannot warm up: the pool is closed; create a new MemoryPool");
  }
  const auto start = std::chrono::steady_clock::now();
  WarmupReport report;
  const std::uint64_t heap_bytes = warm_bytes_per_heap(sizes_bytes, sizes_are_default);
  const std::uint64_t total_bytes = heap_bytes * heaps_.size();
  for (const auto& heap : heaps_) {
    for (std::uint64_t offset = 0; offset < heap_bytes; offset += kWarmupStepBytes) {
      const std::uint64_t step = std::min(kWarmupStepBytes, heap_bytes - offset);
      bool complete = false;
      report.committed_bytes += heap->warm_up(offset, step, complete);
      if (!complete) {
        throw_failure(is_closed() ? AllocationOutcome::closed : AllocationOutcome::out_of_memory, heap_bytes);
      }
      report.warm_bytes += step;
      if (progress) {
        progress(report.warm_bytes, total_bytes);
      }
    }
  }
  report.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return report;
}

std::uint64_t MemoryPool::trim(bool may_log) {
  if (lost_device_) {
    return 0;
  }
  bool refused = false;
  std::uint64_t given_back = 0;
  poll_pending();
  for (MemoryPool* lane : lanes_->all(false)) {
    static_cast<void>(lane->complete_pending(Completion::settled));
    given_back += lane->trim_lane({.enough_bytes = std::numeric_limits<std::uint64_t>::max()}, refused);
  }
  if (refused && may_log) {
    PoolLog::trim_refused(device_->name());
  }
  return given_back;
}

std::uint64_t MemoryPool::trim_lane(const TrimOptions& options, bool& refused) {
  Heap::TrimOptions of_heap;
  if (is_stream_ordered_) {
    of_heap.is_unused = [this, &options] { return has_finished_stream(options); };
  }
  std::uint64_t given_back = 0;
  caches_.flush();
  const std::lock_guard<std::mutex> lock(trim_mutex_);
  const Trimming trimming(trim_epoch_);
  for (const auto& heap : heaps_) {
    if (given_back < options.enough_bytes) {
      of_heap.enough_bytes = options.enough_bytes - given_back;
      given_back += heap->trim(refused, of_heap);
    }
  }
  return given_back;
}

void MemoryPool::close() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) {
    return;
  }
  for (MemoryPool* lane : lanes_->all(true)) {
    lane->close_lane();
  }
  PoolLog::close(leak_report());
}

void MemoryPool::close_lane() noexcept {
  closed_.store(true, std::memory_order_release);
  caches_.disable();
  static_cast<void>(complete_pending(Completion::closing));
  for (const auto& heap : heaps_) {
    heap->close();
  }
}

LeakReport MemoryPool::leak_report() const {
  const PoolStatistics now = statistics();
  return {.acquired = now.total_allocations,
          .released = now.total_deallocations,
          .leaked_buffers = now.active_allocations - now.active_arrays,
          .leaked_bytes = now.used_bytes + now.fallback_used_bytes - now.array_bytes,
          .live_arrays = now.active_arrays,
          .live_array_bytes = now.array_bytes,
          .origins_known = origins_.enabled(),
          .origins = origins_.texts()};
}

}  // namespace tierpool
