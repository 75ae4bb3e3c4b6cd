#include "tierpool/pool/fallback_allocations.hpp"

#include <limits>
#include <new>

#include "tierpool/base/bytes.hpp"

namespace tierpool {

bool FallbackAllocations::take(Allocation& request, std::uint64_t alignment_bytes, bool counted) noexcept {
  if (request.requested_bytes > std::numeric_limits<std::uint64_t>::max() / 2) {
    return false;
  }
  const std::uint64_t block_bytes = align_up(request.requested_bytes == 0 ? 1 : request.requested_bytes, kUnitBytes);
  const DirectAllocation direct = device_.allocate_direct(block_bytes, alignment_bytes);
  if (!direct) {
    return false;
  }
  memory_.took(block_bytes);
  taken_.add(block_bytes);
  request.address = direct.address;
  request.block_bytes = block_bytes;
  request.dirty_bytes = direct.zeroed ? 0 : block_bytes;
  request.heap_index = kNoHeap;
  request.node = kNoNode;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    request.generation = next_generation_++;
    records_.emplace(request.address, Record{block_bytes, alignment_bytes, request.generation, request.holder});
    live_count_.fetch_add(1, std::memory_order_release);
    live_bytes_ += block_bytes;
    if (counted) {
      counters_.count_allocation(request);
    }
  } catch (const std::bad_alloc&) {
    free({direct.address, block_bytes, alignment_bytes});
    request.address = 0;
    return false;  // no room to remember an allocation is no room for it
  }
  return true;
}

void FallbackAllocations::count(const Allocation& allocation) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  counters_.count_allocation(allocation);
}

ReleaseResult FallbackAllocations::remove(const Allocation& allocation, bool counted, Taken& taken) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = records_.find(allocation.address);
  if (found == records_.end() || found->second.generation != allocation.generation) {
    return ReleaseResult::stale;
  }
  taken = {allocation.address, found->second.block_bytes, found->second.alignment_bytes};
  records_.erase(found);
  live_count_.fetch_sub(1, std::memory_order_release);
  live_bytes_ -= taken.block_bytes;
  if (counted) {
    counters_.count_deallocation(allocation);
  }
  return orphaned_ ? ReleaseResult::released_orphan : ReleaseResult::released;
}

void FallbackAllocations::undo(const Allocation& allocation) noexcept {
  Taken taken;
  if (remove(allocation, false, taken) != ReleaseResult::stale) {
    free(taken);
  }
  count_exhaustion();
}

ReleaseResult FallbackAllocations::release(const Allocation& allocation) noexcept {
  Taken taken;
  const ReleaseResult result = remove(allocation, true, taken);
  if (result != ReleaseResult::stale) {
    free(taken);
  }
  return result;
}

FallbackAllocations::Taken FallbackAllocations::defer(const Allocation& allocation) noexcept {
  Taken taken;
  static_cast<void>(remove(allocation, true, taken));
  return taken;
}

bool FallbackAllocations::is_live(const Allocation& allocation) const noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = records_.find(allocation.address);
  return found != records_.end() && found->second.generation == allocation.generation;
}

std::uint64_t FallbackAllocations::orphan() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  orphaned_ = true;
  return records_.size();
}

Allocation FallbackAllocations::find_array(std::uint64_t address) noexcept {
  if (live_count_.load(std::memory_order_acquire) == 0) {
    return {};
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = records_.find(address);
  if (found == records_.end() || found->second.holder != Holder::array) {
    return {};
  }
  Allocation allocation;
  allocation.address = address;
  allocation.requested_bytes = allocation.block_bytes = allocation.dirty_bytes = found->second.block_bytes;
  allocation.generation = found->second.generation;
  allocation.holder = Holder::array;
  return allocation;
}

FallbackStatistics FallbackAllocations::statistics() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {counters_.since(baseline_, track_statistics_),
          track_statistics_ ? exhaustion_events() - exhaustion_baseline_ : 0, records_.size(), live_bytes_};
}

void FallbackAllocations::reset_statistics() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  baseline_ = counters_;
  exhaustion_baseline_ = exhaustion_events();
  counters_.largest_request_bytes = 0;
}

}  // namespace tierpool
