// Many allocations in one call: what the calling thread's magazines have comes first, under one lock.

#include <cstddef>

#include "tierpool/pool/memory_pool_hot_path.hpp"

namespace tierpool {

std::vector<Allocation> MemoryPool::allocate_batch(std::span<const std::uint64_t> sizes) {
  std::vector<Allocation> batch(sizes.size());
  std::vector<std::size_t> missing;
  missing.reserve(sizes.size());
  take_parked(sizes, batch);
  for (std::size_t index = 0; index < sizes.size(); ++index) {
    if (batch[index]) [[likely]] {
      continue;
    }
    const AllocationOutcome outcome = serve_slowly({.bytes = sizes[index]}, false, batch[index]);
    if (outcome != AllocationOutcome::served) {
      undo(batch, missing);
      throw_failure(outcome, sizes[index]);
    }
    missing.push_back(index);
  }
  count(batch, missing);
  return batch;
}

void MemoryPool::take_parked(std::span<const std::uint64_t> sizes, std::span<Allocation> batch) noexcept {
  ThreadCache* cache = fast_id_ == caches_.id() ? caches_.current() : nullptr;
  if (cache == nullptr || is_closed()) {
    return;
  }
  cache->lock.lock_as_owner();
  for (std::size_t index = 0; index < sizes.size(); ++index) {
    batch[index].requested_bytes = sizes[index];
    static_cast<void>(cache->take(sizes[index], batch[index]));
  }
  cache->lock.unlock_as_owner();
}

void MemoryPool::count(std::span<const Allocation> batch, std::span<const std::size_t> missing) noexcept {
  ThreadCache* cache = missing.size() == batch.size() ? nullptr : caches_.current();
  if (cache != nullptr) {
    cache->lock.lock_as_owner();
  }
  for (std::size_t index = 0; index < batch.size(); ++index) {
    if (!missing.empty() && missing.front() == index) {
      missing = missing.subspan(1);
      count(batch[index]);
    } else if (cache != nullptr) {
      cache->counters_of(batch[index].heap_index).count_allocation(batch[index].requested_bytes);
    }
  }
  if (cache != nullptr) {
    cache->lock.unlock_as_owner();
  }
}

void MemoryPool::count(const Allocation& allocation) noexcept {
  if (allocation.is_fallback()) {
    fallbacks_.count(allocation);
  } else {
    heaps_[allocation.heap_index]->count(allocation);
  }
}

void MemoryPool::undo(std::span<const Allocation> batch, std::span<const std::size_t> missing) noexcept {
  for (const Allocation& allocation : batch) {
    const bool was_missing = !missing.empty() && &batch[missing.front()] == &allocation;
    if (was_missing) {
      missing = missing.subspan(1);
      undo(allocation);
    } else if (allocation) {
      const ParkedBlock block{allocation.address, allocation.heap_index, allocation.node, allocation.generation};
      heaps_[allocation.heap_index]->give_back({&block, 1});
    }
  }
}

std::size_t MemoryPool::release_batch(std::span<const Allocation> batch) noexcept {
  std::size_t released = 0;
  for (std::size_t index = 0; index < batch.size(); ++index) {
    const std::size_t parked = release_run(batch.subspan(index));
    released += parked;
    index += parked;
    if (index < batch.size()) {
      released += release(batch[index]) ? 1 : 0;
    }
  }
  return released;
}

std::size_t MemoryPool::release_run(std::span<const Allocation> batch) noexcept {
  std::size_t count = 0;
  if (ThreadCaches::is_current(fast_id_) && ThreadCaches::current_cache().lock.try_lock_as_owner_fast()) [[likely]] {
    ThreadCache& cache = ThreadCaches::current_cache();
    while (count < batch.size() && batch[count].holder == Holder::buffer &&
           park_in<Holder::buffer>(cache, batch[count])) {
      ++count;
    }
    cache.lock.unlock_as_owner();
  }
  return count;
}

void MemoryPool::undo(const Allocation& allocation) noexcept {
  if (allocation.is_fallback()) {
    fallbacks_.undo(allocation);
  } else {
    heaps_[allocation.heap_index]->undo(allocation);
  }
  limit_.give_back(allocation.block_bytes);
}

}  // namespace tierpool
