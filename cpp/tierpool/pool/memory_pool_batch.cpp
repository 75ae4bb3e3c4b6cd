// Many allocations in one call: what the calling thread's magazines have comes first, under one lock.

#include <algorithm>
#include <cstddef>

#include "tierpool/pool/memory_pool_hot_path.hpp"

namespace tierpool {

namespace {

std::vector<std::size_t> unserved(std::span<const Allocation> batch) {
  const auto is_unserved = [](const Allocation& allocation) { return !allocation; };
  std::vector<std::size_t> indices;
  indices.reserve(static_cast<std::size_t>(std::count_if(batch.begin(), batch.end(), is_unserved)));
  for (std::size_t index = 0; index < batch.size(); ++index) {
    if (is_unserved(batch[index])) {
      indices.push_back(index);
    }
  }
  return indices;
}

}  // namespace

std::vector<Allocation> MemoryPool::allocate_batch(std::span<const std::uint64_t> sizes) {
  std::vector<Allocation> batch;
  allocate_batch(sizes, batch);
  return batch;
}

void MemoryPool::allocate_batch(std::span<const std::uint64_t> sizes, std::vector<Allocation>& batch) {
  batch.clear();
  batch.reserve(sizes.size());
  if (take_parked(sizes, batch)) [[likely]] {
    settle_pending(true);
    return;
  }
  std::vector<std::size_t> missing;
  try {
    missing = unserved(batch);
    serve_missing(sizes, batch, missing);
  } catch (...) {
    undo(batch, missing);
    batch.clear();
    throw;
  }
  for (const std::size_t index : missing) {
    count(batch[index]);
  }
  settle_pending(true);
}

void MemoryPool::serve_missing(std::span<const std::uint64_t> sizes, std::span<Allocation> batch,
                               std::span<const std::size_t> missing) {
  for (const std::size_t index : missing) {
    const AllocationOutcome outcome = serve_slowly({.bytes = sizes[index]}, false, batch[index]);
    if (outcome != AllocationOutcome::served) {
      batch[index].address = 0;
      throw_failure(outcome, sizes[index]);
    }
  }
}

bool MemoryPool::take_parked(std::span<const std::uint64_t> sizes, std::vector<Allocation>& batch) noexcept {
  ThreadCache* cache = fast_id_ == caches_.id() && !is_closed() ? caches_.current() : nullptr;
  if (cache == nullptr) {
    batch.resize(sizes.size());
    return sizes.empty() && !is_closed();
  }
  bool complete = true;
  cache->lock.lock_as_owner();
  for (const std::uint64_t bytes : sizes) {
    Allocation& allocation = batch.emplace_back();
    allocation.requested_bytes = bytes;
    if (cache->take(bytes, allocation)) [[likely]] {
      cache->pending_of(allocation.heap_index).count_allocation(bytes);
    } else {
      complete = false;
    }
  }
  cache->lock.unlock_as_owner();
  return complete;
}

void MemoryPool::settle_pending(bool counts) noexcept {
  ThreadCache* cache = config_.magazines ? caches_.current() : nullptr;
  if (cache != nullptr) {
    cache->lock.lock_as_owner();
    cache->settle_pending(counts);
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
  settle_pending(false);
  for (const Allocation& allocation : batch) {
    const bool was_missing = !missing.empty() && &batch[missing.front()] == &allocation;
    missing = missing.subspan(was_missing ? 1 : 0);
    if (!allocation) {
      continue;
    }
    if (was_missing) {
      undo(allocation);
    } else {
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
