// How a pool serves and takes back: first the calling thread's magazines, then the heaps, then the device.

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "tierpool/pool/memory_pool_hot_path.hpp"

namespace tierpool {
namespace {

// A request is tried on this many heaps without an allocation of its own; more heaps take a vector.
constexpr std::size_t kInlineHeaps = 32;
constexpr std::size_t kMaxRefill = 64;

}  // namespace

AllocationOutcome MemoryPool::serve(std::uint64_t bytes, Allocation& allocation) noexcept {
  return serve_from_magazine<Holder::buffer>(bytes, allocation) ? AllocationOutcome::served
                                                                : serve_buffer_slowly(bytes, allocation);
}

AllocationOutcome MemoryPool::serve(const AllocationRequest& request, Allocation& allocation) noexcept {
  bool served = false;
  if (request.alignment_bytes <= kUnitBytes) [[likely]] {
    served = request.holder == Holder::buffer ? serve_from_magazine<Holder::buffer>(request.bytes, allocation)
                                              : serve_from_magazine<Holder::array>(request.bytes, allocation);
  }
  return served ? AllocationOutcome::served : serve_slowly(request, true, allocation);
}

AllocationOutcome MemoryPool::serve_buffer_slowly(std::uint64_t bytes, Allocation& allocation) noexcept {
  return serve_slowly({.bytes = bytes}, true, allocation);
}

bool MemoryPool::release(const Allocation& allocation) noexcept {
  if (allocation.holder != Holder::buffer) [[unlikely]] {
    return release_array(allocation);
  }
  return release_to_magazine<Holder::buffer>(allocation) || release_slowly(allocation);
}

bool MemoryPool::release_to_magazine(const Allocation& allocation) noexcept {
  return allocation.holder == Holder::buffer && release_to_magazine<Holder::buffer>(allocation);
}

[[gnu::noinline]] bool MemoryPool::release_array(const Allocation& allocation) noexcept {
  return release_to_magazine<Holder::array>(allocation) || release_slowly(allocation);
}

bool MemoryPool::take_parked(const AllocationRequest& request, Allocation& allocation) noexcept {
  ThreadCache* cache = caches_.current();
  if (cache == nullptr) {
    return false;
  }
  cache->lock.lock_as_owner();
  const bool taken = cache->take(request.bytes, allocation);
  if (taken) {
    cache->counters_of(allocation.heap_index).count_allocation(allocation);
    heaps_[allocation.heap_index]->note_array(allocation);
  }
  cache->lock.unlock_as_owner();
  return taken;
}

bool MemoryPool::plan(const AllocationRequest& request, Plan& plan) noexcept {
  if (request.bytes > std::numeric_limits<std::uint64_t>::max() - kUnitBytes) {
    plan.exact_bytes = plan.block_bytes = std::numeric_limits<std::uint64_t>::max();
    return limit_.take(plan.block_bytes);
  }
  plan.exact_bytes = block_bytes_for(request.bytes);
  plan.block_bytes = uses_magazines(request) ? layout_.rounded_bytes(request.bytes) : plan.exact_bytes;
  if (limit_.take(plan.block_bytes)) {
    return true;
  }
  plan.block_bytes = plan.exact_bytes;
  return limit_.take(plan.block_bytes);
}

AllocationOutcome MemoryPool::serve_slowly(const AllocationRequest& request, bool counted,
                                           Allocation& allocation) noexcept {
  if (is_closed()) {
    return AllocationOutcome::closed;
  }
  if (request.heaps_only && request.bytes > heap_size_bytes_ && !config_.max_bytes) {
    fallbacks_.count_exhaustion();
    return AllocationOutcome::out_of_memory;
  }
  allocation = Allocation{};
  allocation.requested_bytes = request.bytes;
  allocation.holder = request.holder;
  if (counted && has_only_heap_ && take_from_only_heap(request, allocation)) {
    return AllocationOutcome::served;
  }
  Plan plan{.counted = counted};
  const AllocationOutcome within_limit =
      this->plan(request, plan) ? AllocationOutcome::served : plan_within_limit(request, plan);
  if (within_limit != AllocationOutcome::served) {
    if (within_limit == AllocationOutcome::over_limit) {
      fallbacks_.count_exhaustion();
    }
    return within_limit;
  }
  // Not where only the exact size is within the limit: what is parked has the class's.
  const bool may_be_parked = counted && uses_magazines(request) && plan.exact_bytes <= heap_size_bytes_ &&
                             plan.block_bytes == layout_.rounded_bytes(request.bytes);
  if (may_be_parked && take_parked(request, allocation)) {
    return AllocationOutcome::served;
  }
  return serve_planned(request, plan, allocation);
}

// What the general way comes to where there is nothing to choose, in a fraction of its code: between two requests of a
// framework, that has left the processor's caches.
[[gnu::noinline]] bool MemoryPool::take_from_only_heap(const AllocationRequest& request,
                                                       Allocation& allocation) noexcept {
  if (request.bytes > heap_size_bytes_ || lanes_->pending.count() != 0 || has_tail()) {
    return false;
  }
  const Heap::TakeOptions options{
      .block_bytes = block_bytes_for(request.bytes), .alignment_bytes = request.alignment_bytes, .may_commit = false};
  return heaps_.front()->take(allocation, options) == Heap::TakeResult::taken;
}

AllocationOutcome MemoryPool::serve_planned(const AllocationRequest& request, const Plan& plan,
                                            Allocation& allocation) noexcept {
  const bool falls_back = !request.heaps_only && (!config_.enabled || config_.on_exhaustion == OnExhaustion::fallback);
  const bool fits_heaps = !heaps_.empty() && plan.exact_bytes <= heap_size_bytes_;
  AllocationOutcome outcome = AllocationOutcome::out_of_memory;
  if (fits_heaps) {
    Plan patient = plan;
    patient.most = falls_back ? Wait::events : Wait::device;
    outcome = serve_from_heaps(request, patient, allocation);
  }
  if (outcome == AllocationOutcome::out_of_memory && is_closed()) {
    outcome = AllocationOutcome::closed;  // while this request was on its way, which is why the heaps refused it
  } else if (outcome == AllocationOutcome::out_of_memory && falls_back) {
    outcome = AllocationOutcome::would_block;
    if (request.may_block) {
      outcome = take_fallback(request, plan, allocation) ? AllocationOutcome::served : AllocationOutcome::out_of_memory;
    }
  }
  if (outcome == AllocationOutcome::out_of_memory && falls_back && fits_heaps && has_streams_) {
    outcome = serve_from_heaps(request, plan, allocation);  // the device has no more: now it is waited for
  }
  // An exact block may have come where a class was planned.
  limit_.give_back(plan.block_bytes - (outcome == AllocationOutcome::served ? allocation.block_bytes : 0));
  if (outcome == AllocationOutcome::out_of_memory) {
    fallbacks_.count_exhaustion();
  }
  const bool was_exhausted =
      outcome == AllocationOutcome::out_of_memory || (outcome == AllocationOutcome::served && allocation.is_fallback());
  if (was_exhausted && !request.heaps_only && request.may_log && log_.exhaustion_is_due()) {
    log_.exhaustion(request.bytes, falls_back, fallbacks_.statistics().counters.allocations);
  }
  return outcome;
}

AllocationOutcome MemoryPool::serve_from_heaps(const AllocationRequest& request, const Plan& plan,
                                               Allocation& allocation) noexcept {
  if (is_stream_ordered_) {
    if (poll_pending(&stream_, request.may_block) == Polled::must_block) {
      return AllocationOutcome::would_block;
    }
    keep_tail();
    // What is at hand goes before more of the device's memory.
    const AllocationOutcome outcome = serve_without_growth(request, plan, allocation);
    if (outcome == AllocationOutcome::served) {
      return outcome;
    }
  }
  const bool were_parked = caches_.may_hold_blocks();
  AllocationOutcome outcome = try_sizes(request, plan, allocation);
  if (outcome == AllocationOutcome::out_of_memory && (were_parked || caches_.may_hold_blocks())) {
    // What threads have parked may be the very memory that is missing, also if someone else has brought it back by now.
    caches_.flush();
    outcome = try_sizes(request, plan, allocation);
  }
  return outcome == AllocationOutcome::out_of_memory && has_streams_ ? serve_under_pressure(request, plan, allocation)
                                                                     : outcome;
}

AllocationOutcome MemoryPool::try_sizes(const AllocationRequest& request, const Plan& plan,
                                        Allocation& allocation) noexcept {
  const AllocationOutcome outcome = try_heaps_beside_trim(request, plan, allocation);
  if (outcome != AllocationOutcome::out_of_memory || plan.block_bytes == plan.exact_bytes) {
    return outcome;
  }
  return try_heaps_beside_trim(request, {plan.exact_bytes, plan.exact_bytes, plan.counted, plan.may_grow}, allocation);
}

AllocationOutcome MemoryPool::try_heaps_beside_trim(const AllocationRequest& request, const Plan& plan,
                                                    Allocation& allocation) noexcept {
  const std::uint64_t epoch = trim_epoch_.load(std::memory_order_acquire);
  const AllocationOutcome outcome = try_heaps(request, plan, allocation);
  const bool was_trimming = epoch % 2 != 0 || trim_epoch_.load(std::memory_order_acquire) != epoch;
  if (outcome != AllocationOutcome::out_of_memory || !was_trimming) {
    return outcome;
  }
  if (!request.may_block) {
    return AllocationOutcome::would_block;
  }
  const std::lock_guard<std::mutex> no_trim(trim_mutex_);
  return try_heaps(request, plan, allocation);
}

AllocationOutcome MemoryPool::try_heaps(const AllocationRequest& request, const Plan& plan,
                                        Allocation& allocation) noexcept {
  if (heaps_.size() <= kInlineHeaps) [[likely]] {
    std::array<HeapView, kInlineHeaps> views;
    std::array<std::uint32_t, kInlineHeaps> order;
    std::transform(heaps_.begin(), heaps_.end(), views.begin(), [](const auto& heap) { return heap->view(); });
    const std::span<const HeapView> all = std::span(views).first(heaps_.size());
    const std::size_t count =
        order_heaps(config_.strategy, all, plan.block_bytes, turn_.load(std::memory_order_relaxed), order);
    return try_ordered(std::span(order).first(count), request, plan, allocation);
  }
  try {
    std::vector<HeapView> views(heaps_.size());
    std::vector<std::uint32_t> order(heaps_.size());
    std::transform(heaps_.begin(), heaps_.end(), views.begin(), [](const auto& heap) { return heap->view(); });
    const std::size_t count =
        order_heaps(config_.strategy, views, plan.block_bytes, turn_.load(std::memory_order_relaxed), order);
    return try_ordered(std::span(order).first(count), request, plan, allocation);
  } catch (const std::bad_alloc&) {
    return AllocationOutcome::out_of_memory;
  }
}

AllocationOutcome MemoryPool::try_ordered(std::span<const std::uint32_t> order, const AllocationRequest& request,
                                          const Plan& plan, Allocation& allocation) noexcept {
  const bool has_cache = uses_magazines(request) && ThreadCaches::is_current(caches_.id());
  const Heap::TakeOptions options{.block_bytes = plan.block_bytes,
                                  .alignment_bytes = request.alignment_bytes,
                                  .may_commit = request.may_block && plan.may_grow,
                                  .counted = plan.counted,
                                  .lane = has_cache ? ThreadCaches::current_cache().lane() : 0};
  const std::uint32_t turn = turn_.load(std::memory_order_relaxed);
  for (const std::uint32_t index : order) {
    switch (heaps_[index]->take(allocation, options)) {
      case Heap::TakeResult::taken:
        turn_.store(turn + 1 < heaps_.size() ? turn + 1 : 0, std::memory_order_relaxed);
        if (uses_magazines(request)) {
          allocation.magazine = static_cast<std::uint16_t>(layout_.index_for(allocation.block_bytes));
          if (plan.counted) {
            refill(allocation);
          }
        }
        return AllocationOutcome::served;
      case Heap::TakeResult::needs_commit:
        return AllocationOutcome::would_block;  // the caller comes again, for the same heap
      case Heap::TakeResult::full:
        break;
    }
  }
  return AllocationOutcome::out_of_memory;
}

void MemoryPool::refill(const Allocation& allocation) noexcept {
  ThreadCache* cache = caches_.current();
  if (cache == nullptr) {
    return;
  }
  // The heap's lock inside the cache's, as everywhere: a standstill finds no block between the two.
  cache->lock.lock_as_owner();
  cache->note_miss(allocation.block_bytes);
  const std::uint32_t extras = cache->extra_blocks(allocation.magazine, allocation.block_bytes);
  if (extras != 0) {
    park_extras(*cache, allocation, extras);
  }
  cache->lock.unlock_as_owner();
}

void MemoryPool::park_extras(ThreadCache& cache, const Allocation& allocation, std::uint32_t extras) noexcept {
  std::array<ParkedBlock, kMaxRefill> blocks;
  const std::span<ParkedBlock> wanted = std::span(blocks).first(std::min<std::size_t>(extras, blocks.size()));
  const std::size_t count = heaps_[allocation.heap_index]->take_parked(allocation.block_bytes, cache.lane(), wanted);
  for (const ParkedBlock& block : wanted.first(count)) {
    cache.magazine_with_room(allocation.magazine, allocation.block_bytes)->push(block);
  }
  caches_.note_places();
}

bool MemoryPool::park(const Allocation& allocation) noexcept {
  ThreadCache* cache = caches_.current();
  Heap& heap = *heaps_[allocation.heap_index];
  if (cache == nullptr || !heap.is_live(allocation)) {
    return false;
  }
  cache->lock.lock_as_owner();
  Magazine* magazine = cache->magazine_with_room(allocation.magazine, allocation.block_bytes);
  if (magazine == nullptr && cache->make_room(allocation.magazine, allocation.block_bytes)) {
    caches_.note_places();
    magazine = cache->magazine_with_room(allocation.magazine, allocation.block_bytes);
  }
  if (magazine != nullptr) {
    heap.forget_array(allocation);
    magazine->push(heap.park(allocation));
    cache->counters_of(allocation.heap_index).count_deallocation(allocation);
  }
  cache->lock.unlock_as_owner();
  return magazine != nullptr;
}

bool MemoryPool::release_slowly(const Allocation& allocation, bool is_named) noexcept {
  if (!allocation.is_fallback() && allocation.heap_index >= heaps_.size()) {
    return false;
  }
  if (has_streams_ && needs_streams(allocation)) {
    return release_in_order(allocation, is_named);
  }
  // Before the memory goes: its address may be someone else's right after.
  origins_.forget(allocation);
  return end_release(allocation, is_named && mark_tail());
}

bool MemoryPool::end_release(const Allocation& allocation, bool behind_tail) noexcept {
  const bool ends_late = allocation.is_fallback() || config_.max_bytes;
  if (ends_late) {
    late_ends_.fetch_add(1, std::memory_order_relaxed);
  }
  const ReleaseResult result =
      allocation.is_fallback() ? fallbacks_.release(allocation) : release_from_heap(allocation, behind_tail);
  // Without a limit nothing holds the pool any more: whoever has it may have ended it.
  if (ends_late && result != ReleaseResult::stale) {
    limit_.give_back(allocation.block_bytes);
  }
  if (ends_late) {
    late_ends_.fetch_sub(1, std::memory_order_release);
  }
  if (result == ReleaseResult::released_orphan) {
    remove_reference(1);
  }
  return result != ReleaseResult::stale;
}

ReleaseResult MemoryPool::release_from_heap(const Allocation& allocation, bool behind_tail) noexcept {
  return config_.magazines && park(allocation)
             ? ReleaseResult::released
             : heaps_[allocation.heap_index]->release(allocation, {late_ends_, behind_tail});
}

void MemoryPool::give_back(std::span<const ParkedBlock> blocks) noexcept {
  for (std::uint32_t index = 0; index < heaps_.size(); ++index) {
    const auto is_here = [index](const ParkedBlock& block) { return block.heap_index == index; };
    if (std::any_of(blocks.begin(), blocks.end(), is_here)) {
      heaps_[index]->give_back(blocks);
    }
  }
}

Allocation MemoryPool::find_array(std::uint64_t address) noexcept {
  for (const auto& heap : heaps_) {
    if (heap->contains(address)) {
      Allocation found = heap->find_array(address);
      found.magazine =
          recorded_.contains(address) ? kManyStreams : static_cast<std::uint16_t>(layout_.index_for(found.block_bytes));
      return found;
    }
  }
  return fallbacks_.find_array(address);
}

}  // namespace tierpool
