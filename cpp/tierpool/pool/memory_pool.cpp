#include "tierpool/pool/memory_pool.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"
#include "tierpool/pool/out_of_memory.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kWarmupStepBytes = 64 * kMiB;
// A request is tried on this many heaps without an allocation of its own; more heaps take a vector.
constexpr std::size_t kInlineHeaps = 32;

std::uint64_t block_bytes_for(std::uint64_t bytes) noexcept {
  return bytes > UINT64_MAX - kUnitBytes ? UINT64_MAX : align_up(std::max<std::uint64_t>(bytes, 1), kUnitBytes);
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
  PoolLog::creation_failed();
  throw InitializationError(std::to_string(config.num_heaps) + " heaps of " +
                            format_memory_size(config.heap_size_bytes) + " on device '" + device.name() +
                            "': " + reason.what() + "; reduce num_heaps, heap_size_mb or warmup_sizes");
}

std::vector<std::unique_ptr<Heap>> make_heaps(const PoolConfig& config, Device& device, UsedBytes& used) {
  std::vector<std::unique_ptr<Heap>> heaps;
  if (!config.enabled) {
    return heaps;
  }
  const std::uint64_t capacity_bytes = align_up(config.heap_size_bytes, kUnitBytes);
  try {
    heaps.reserve(config.num_heaps);
    for (std::uint32_t index = 0; index < config.num_heaps; ++index) {
      const Heap::Options options{index, capacity_bytes, config.placement, config.track_statistics};
      heaps.push_back(std::make_unique<Heap>(device, used, options));
    }
  } catch (const std::exception& error) {
    throw_not_built(config, device, error);
  }
  return heaps;
}

}  // namespace

MemoryPool::MemoryPool(const PoolConfig& config, std::shared_ptr<Device> device)
    : config_(validated(config, *device)),
      device_(std::move(device)),
      heap_size_bytes_(align_up(config.heap_size_bytes, kUnitBytes)),
      heaps_(make_heaps(config_, *device_, used_)),
      fallbacks_(*device_, config.track_statistics),
      limit_(config_.max_bytes),
      origins_(config_.track_origins),
      log_(config_.log_exhaustion && config_.enabled),
      fork_handler_(
          ForkHandler::Rank::pool, [this] { before_fork(); }, [this] { after_fork(); }) {
  if (heaps_.empty() || config_.warmup_bytes.empty()) {
    return;
  }
  try {
    warm_up(config_.warmup_bytes, nullptr, config_.warmup_is_default);
  } catch (const std::exception& error) {
    throw_not_built(config_, *device_, error);
  }
}

MemoryPool::~MemoryPool() = default;

void MemoryPool::before_fork() {
  trim_mutex_.lock();
  for (const auto& heap : heaps_) {
    heap->lock_commits();
  }
  for (const auto& heap : heaps_) {
    heap->lock();
  }
  fallbacks_.lock();
  origins_.lock();
}

void MemoryPool::after_fork() {
  origins_.unlock();
  fallbacks_.unlock();
  for (const auto& heap : heaps_) {
    heap->unlock();
    heap->unlock_commits();
  }
  trim_mutex_.unlock();
}

AllocationOutcome MemoryPool::try_heaps(const AllocationRequest& request, bool counted,
                                        Allocation& allocation) noexcept {
  const std::uint64_t bytes = block_bytes_for(request.bytes);
  if (heaps_.empty() || bytes > heap_size_bytes_) {
    return AllocationOutcome::out_of_memory;
  }
  std::array<HeapView, kInlineHeaps> inline_views;
  std::array<std::uint32_t, kInlineHeaps> inline_order;
  std::vector<HeapView> more_views;
  std::vector<std::uint32_t> more_order;
  std::span<HeapView> views(inline_views);
  std::span<std::uint32_t> order(inline_order);
  if (heaps_.size() > kInlineHeaps) {
    try {
      more_views.resize(heaps_.size());
      more_order.resize(heaps_.size());
    } catch (const std::bad_alloc&) {
      return AllocationOutcome::out_of_memory;
    }
    views = more_views;
    order = more_order;
  }
  for (std::size_t index = 0; index < heaps_.size(); ++index) {
    views[index] = heaps_[index]->view();
  }
  const std::uint64_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
  const std::size_t count = order_heaps(config_.strategy, views.first(heaps_.size()), bytes, turn, order);
  const Heap::TakeOptions options{request.alignment_bytes, request.may_block, counted};
  for (std::size_t step = 0; step < count; ++step) {
    switch (heaps_[order[step]]->take(allocation, options)) {
      case Heap::TakeResult::taken:
        return AllocationOutcome::served;
      case Heap::TakeResult::needs_commit:
        turn_.fetch_sub(1, std::memory_order_relaxed);  // the caller comes again, for the same heap
        return AllocationOutcome::would_block;
      case Heap::TakeResult::full:
        break;
    }
  }
  return AllocationOutcome::out_of_memory;
}

AllocationOutcome MemoryPool::serve_from_heaps(const AllocationRequest& request, bool counted,
                                               Allocation& allocation) noexcept {
  const std::uint64_t epoch = trim_epoch_.load(std::memory_order_acquire);
  const AllocationOutcome outcome = try_heaps(request, counted, allocation);
  const bool was_trimming = epoch % 2 != 0 || trim_epoch_.load(std::memory_order_acquire) != epoch;
  if (outcome != AllocationOutcome::out_of_memory || !was_trimming || request.bytes > heap_size_bytes_) {
    return outcome;
  }
  if (!request.may_block) {
    return AllocationOutcome::would_block;
  }
  const std::lock_guard<std::mutex> no_trim(trim_mutex_);
  return try_heaps(request, counted, allocation);
}

AllocationOutcome MemoryPool::serve(const AllocationRequest& request, bool counted, Allocation& allocation) noexcept {
  if (is_closed()) {
    return AllocationOutcome::closed;
  }
  allocation = Allocation{};
  allocation.requested_bytes = request.bytes;
  allocation.holder = request.holder;
  const std::uint64_t block_bytes = block_bytes_for(request.bytes);
  if (!limit_.take(block_bytes)) {
    fallbacks_.count_exhaustion();
    return AllocationOutcome::over_limit;
  }
  AllocationOutcome outcome = serve_from_heaps(request, counted, allocation);
  if (outcome == AllocationOutcome::served) {
    return outcome;
  }
  const bool falls_back = !request.heaps_only && (!config_.enabled || config_.on_exhaustion == OnExhaustion::fallback);
  if (outcome == AllocationOutcome::would_block || (falls_back && !request.may_block)) {
    limit_.give_back(block_bytes);
    return AllocationOutcome::would_block;
  }
  if (is_closed()) {  // while this request was on its way, which is why the heaps refused it
    limit_.give_back(block_bytes);
    return AllocationOutcome::closed;
  }
  if (falls_back && fallbacks_.take(allocation, request.alignment_bytes, counted)) {
    outcome = AllocationOutcome::served;
  } else {
    limit_.give_back(block_bytes);
    fallbacks_.count_exhaustion();
  }
  if (!request.heaps_only && log_.exhaustion_is_due()) {
    log_.exhaustion(request.bytes, falls_back, fallbacks_.statistics().counters.allocations);
  }
  return outcome;
}

AllocationOutcome MemoryPool::serve(const AllocationRequest& request, Allocation& allocation) noexcept {
  return serve(request, true, allocation);
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
    throw PoolClosedError("cannot allocate " + std::to_string(bytes) +
                          " bytes: the pool is closed; create a new MemoryPool");
  }
  const bool over_limit = outcome == AllocationOutcome::over_limit;
  throw out_of_memory_error(bytes, over_limit, statistics(), config_, device_->name());
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

std::vector<Allocation> MemoryPool::allocate_batch(std::span<const std::uint64_t> sizes) {
  std::vector<Allocation> batch;
  batch.reserve(sizes.size());
  for (const std::uint64_t bytes : sizes) {
    Allocation allocation;
    const AllocationOutcome outcome = serve({.bytes = bytes}, false, allocation);
    if (outcome != AllocationOutcome::served) {
      std::for_each(batch.rbegin(), batch.rend(), [this](const Allocation& taken) { undo(taken); });
      throw_failure(outcome, bytes);
    }
    batch.push_back(allocation);
  }
  for (const Allocation& allocation : batch) {
    count(allocation);
  }
  return batch;
}

void MemoryPool::count(const Allocation& allocation) noexcept {
  if (allocation.is_fallback()) {
    fallbacks_.count(allocation);
  } else {
    heaps_[allocation.heap_index]->count(allocation);
  }
}

void MemoryPool::undo(const Allocation& allocation) noexcept {
  if (allocation.is_fallback()) {
    fallbacks_.undo(allocation);
  } else {
    heaps_[allocation.heap_index]->undo(allocation);
  }
  limit_.give_back(allocation.block_bytes);
}

bool MemoryPool::release(const Allocation& allocation) noexcept {
  if (!allocation.is_fallback() && allocation.heap_index >= heaps_.size()) {
    return false;
  }
  // Before the memory goes: its address may be someone else's right after.
  origins_.forget(allocation);
  const bool released =
      allocation.is_fallback() ? fallbacks_.release(allocation) : heaps_[allocation.heap_index]->release(allocation);
  if (released) {
    limit_.give_back(allocation.block_bytes);
  }
  return released;
}

Allocation MemoryPool::find_array(std::uint64_t address) noexcept {
  for (const auto& heap : heaps_) {
    if (heap->contains(address)) {
      return heap->find_array(address);
    }
  }
  return fallbacks_.find_array(address);
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

std::uint64_t MemoryPool::trim() {
  bool refused = false;
  std::uint64_t given_back = 0;
  {
    const std::lock_guard<std::mutex> lock(trim_mutex_);
    const Trimming trimming(trim_epoch_);
    for (const auto& heap : heaps_) {
      given_back += heap->trim(refused);
    }
  }
  if (refused) {
    PoolLog::trim_refused(device_->name());
  }
  return given_back;
}

void MemoryPool::close() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) {
    return;
  }
  for (const auto& heap : heaps_) {
    heap->close();
  }
  PoolLog::close(leak_report());
}

LeakReport MemoryPool::leak_report() const {
  AllocationCounters live = fallbacks_.statistics().counters;
  for (const HeapStatistics& heap : heaps()) {
    live.live_buffers += heap.counters.live_buffers;
    live.live_arrays += heap.counters.live_arrays;
    live.live_bytes += heap.counters.live_bytes;
    live.live_array_bytes += heap.counters.live_array_bytes;
  }
  const PoolStatistics now = statistics();
  return {.acquired = now.total_allocations,
          .released = now.total_deallocations,
          .leaked_buffers = live.live_buffers,
          .leaked_bytes = live.live_bytes - live.live_array_bytes,
          .live_arrays = live.live_arrays,
          .live_array_bytes = live.live_array_bytes,
          .origins_known = origins_.enabled(),
          .origins = origins_.texts()};
}

std::vector<HeapStatistics> MemoryPool::heaps() const {
  std::vector<HeapStatistics> all;
  all.reserve(heaps_.size());
  for (const auto& heap : heaps_) {
    all.push_back(heap->statistics());
  }
  return all;
}

PoolStatistics MemoryPool::statistics() const {
  PoolStatistics total;
  total.add(fallbacks_.statistics());
  for (const auto& heap : heaps_) {
    total.add(heap->statistics());
  }
  total.used_bytes = used_.used();
  total.peak_used_bytes = std::max(used_.peak(), total.used_bytes);
  return total;
}

void MemoryPool::reset_statistics() noexcept {
  for (const auto& heap : heaps_) {
    heap->reset_statistics();
  }
  fallbacks_.reset_statistics();
  used_.reset_peak();
}

}  // namespace tierpool
