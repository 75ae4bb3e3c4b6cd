#pragma once

#include "tierpool/pool/memory_pool.hpp"

// What a pool's hot path does with the calling thread's magazines, for the files that serve and take back. Nothing here
// blocks; what is rare says no and is left to a slow function, which begins anew.
namespace tierpool {

template <Holder holder>
inline bool MemoryPool::serve_from_magazine(std::uint64_t bytes, Allocation& allocation) noexcept {
  if (!ThreadCaches::is_current(fast_id_)) [[unlikely]] {
    return false;
  }
  ThreadCache& cache = ThreadCaches::current_cache();
  if (!cache.lock.try_lock_as_owner_fast()) [[unlikely]] {
    return false;
  }
  // A closed pool has no magazine with a block in it.
  const bool taken = cache.take(bytes, allocation);
  if (taken) [[likely]] {
    allocation.requested_bytes = bytes;
    allocation.holder = holder;
    EventCounters& counters = cache.counters_of(allocation.heap_index);
    counters.count_allocation(bytes);
    if constexpr (holder == Holder::array) {
      counters.add_array(allocation.block_bytes);
      heaps_[allocation.heap_index]->note_array(allocation);
    }
  }
  cache.lock.unlock_as_owner();
  return taken;
}

template <Holder holder>
inline bool MemoryPool::park_in(ThreadCache& cache, const Allocation& allocation) noexcept {
  if (allocation.heap_index >= heap_count_) [[unlikely]] {
    return false;
  }
  Heap& heap = *heaps_[allocation.heap_index];
  if (!heap.is_live(allocation)) [[unlikely]] {
    return false;
  }
  Magazine* magazine = cache.magazine_with_room(allocation.magazine, allocation.block_bytes);
  if (magazine == nullptr) [[unlikely]] {
    return false;
  }
  EventCounters& counters = cache.counters_of(allocation.heap_index);
  ++counters.deallocations;
  if constexpr (holder == Holder::array) {
    counters.subtract_array(allocation.block_bytes);
    heap.forget_array(allocation);
  }
  magazine->push(heap.park(allocation));
  return true;
}

template <Holder holder>
inline bool MemoryPool::release_to_magazine(const Allocation& allocation) noexcept {
  if (!ThreadCaches::is_current(fast_id_)) [[unlikely]] {
    return false;
  }
  ThreadCache& cache = ThreadCaches::current_cache();
  if (!cache.lock.try_lock_as_owner_fast()) [[unlikely]] {
    return false;
  }
  const bool parked = park_in<holder>(cache, allocation);
  cache.lock.unlock_as_owner();
  return parked;
}

}  // namespace tierpool
