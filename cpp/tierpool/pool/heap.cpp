#include "tierpool/pool/heap.hpp"

#include <algorithm>
#include <vector>

namespace tierpool {

void UsedBytes::raise_peak(std::uint64_t used) noexcept {
  std::uint64_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < used && !peak_.compare_exchange_weak(peak, used, std::memory_order_relaxed)) {
  }
}

void UsedBytes::add(std::uint64_t bytes) noexcept {
  raise_peak(used_.fetch_add(bytes, std::memory_order_relaxed) + bytes);
}

std::uint64_t UsedBytes::used() noexcept {
  const std::uint64_t used = used_.load(std::memory_order_relaxed);
  // A thread in add() may not have raised the peak yet; what a snapshot has shown must stay below it for good.
  raise_peak(used);
  return used;
}

void UsedBytes::reset_peak() noexcept {
  peak_.store(0, std::memory_order_relaxed);
  raise_peak(used_.load(std::memory_order_relaxed));
}

Heap::Heap(Device& device, UsedBytes& used, const Options& options)
    : used_(used),
      index_(options.index),
      capacity_bytes_(options.capacity_bytes),
      track_statistics_(options.track_statistics),
      array_nodes_(options.capacity_bytes / kUnitBytes),
      reservation_(device, options.capacity_bytes),
      commits_(device, reservation_.get(), options.capacity_bytes),
      blocks_(options.capacity_bytes, options.placement),
      written_end_bytes_(device.commits_zeroed() ? 0 : options.capacity_bytes) {
  publish_view();
}

void Heap::publish_view() noexcept {
  used_hint_.store(blocks_.used_bytes(), std::memory_order_relaxed);
  // Released, so that whoever sees that nothing is left also sees the trim or close() that took it.
  largest_free_hint_.store(closed_ ? 0 : blocks_.largest_free_upper_bound_bytes(), std::memory_order_release);
}

HeapView Heap::view() const noexcept {
  return {used_hint_.load(std::memory_order_relaxed), largest_free_hint_.load(std::memory_order_acquire)};
}

void Heap::hand_out(const Block& block, Allocation& request) noexcept {
  const std::uint64_t end_bytes = block.offset_bytes + block.size_bytes;
  request.address = reservation_.address() + block.offset_bytes;
  request.block_bytes = block.size_bytes;
  request.dirty_bytes = std::clamp(written_end_bytes_, block.offset_bytes, end_bytes) - block.offset_bytes;
  request.heap_index = index_;
  request.node = block.node;
  request.generation = block.generation;
  written_end_bytes_ = std::max(written_end_bytes_, end_bytes);
  if (request.holder == Holder::array) {
    array_nodes_[block.offset_bytes / kUnitBytes] = block.node + 1;
  }
  publish_view();
}

void Heap::add_to_counters(const Allocation& allocation) noexcept {
  counters_.count_allocation(allocation, track_statistics_);
  peak_used_bytes_ = std::max(peak_used_bytes_, counters_.live_bytes);
  used_.add(allocation.block_bytes);
}

Heap::TakeResult Heap::take(Allocation& request, const TakeOptions& options) noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Block block = closed_ ? Block{} : blocks_.allocate(request.requested_bytes, options.alignment_bytes);
    if (!block) {
      return TakeResult::full;
    }
    const bool committed = commits_.covers(block.offset_bytes, block.size_bytes);
    if (!committed && !options.may_commit) {
      blocks_.free(block.node, block.generation);
      return TakeResult::needs_commit;
    }
    hand_out(block, request);
    if (committed) {
      if (options.counted) {
        add_to_counters(request);
      }
      return TakeResult::taken;
    }
  }
  bool complete = false;
  commits_.commit(offset_of(request), request.block_bytes, complete);
  if (!complete) {
    undo(request);
    request.address = 0;
    return TakeResult::full;
  }
  if (options.counted) {
    count(request);
  }
  return TakeResult::taken;
}

void Heap::count(const Allocation& allocation) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  add_to_counters(allocation);
}

bool Heap::should_end_reservation() noexcept {
  if (!closed_ || reservation_ended_ || pins_ != 0 || blocks_.live_count() != 0) {
    return false;
  }
  reservation_ended_ = true;
  return true;
}

bool Heap::take_back(const Allocation& allocation) noexcept {
  blocks_.free(allocation.node, allocation.generation);
  if (allocation.holder == Holder::array) {
    array_nodes_[offset_of(allocation) / kUnitBytes] = 0;
  }
  publish_view();
  return should_end_reservation();
}

void Heap::undo(const Allocation& allocation) noexcept {
  bool ends = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ends = take_back(allocation);
  }
  if (ends) {
    reservation_.release();
  }
}

bool Heap::release(const Allocation& allocation) noexcept {
  bool ends = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!contains(allocation.address) || !blocks_.is_live(allocation.node, allocation.generation) ||
        !blocks_.find(allocation.node, offset_of(allocation))) {
      return false;
    }
    counters_.count_deallocation(allocation, track_statistics_);
    used_.subtract(allocation.block_bytes);
    ends = take_back(allocation);
  }
  if (ends) {
    reservation_.release();
  }
  return true;
}

Allocation Heap::find_array(std::uint64_t address) noexcept {
  if (!contains(address) || (address - reservation_.address()) % kUnitBytes != 0) {
    return {};
  }
  const std::uint64_t offset_bytes = address - reservation_.address();
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint32_t entry = array_nodes_[offset_bytes / kUnitBytes];
  const Block block = entry == 0 ? Block{} : blocks_.find(entry - 1, offset_bytes);
  if (!block) {
    return {};
  }
  Allocation found;
  found.address = address;
  found.requested_bytes = found.block_bytes = found.dirty_bytes = block.size_bytes;
  found.heap_index = index_;
  found.node = block.node;
  found.generation = block.generation;
  found.holder = Holder::array;
  return found;
}

std::uint64_t Heap::warm_up(std::uint64_t offset_bytes, std::uint64_t bytes, bool& complete) noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    complete = !closed_;
    if (closed_) {
      return 0;
    }
    ++pins_;
  }
  const std::uint64_t newly_committed = commits_.commit(offset_bytes, bytes, complete);
  bool ends = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    --pins_;
    ends = should_end_reservation();
  }
  if (ends) {
    reservation_.release();
  }
  return newly_committed;
}

std::uint64_t Heap::trim(bool& refused) {
  const std::uint64_t granularity = commits_.granularity_bytes();
  const std::uint64_t cut_off = capacity_bytes_ % granularity;
  std::vector<Block> held;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) {
      return 0;
    }
    held = blocks_.take_free_blocks(cut_off == 0 ? granularity : cut_off);
    publish_view();
  }
  std::uint64_t given_back = 0;
  for (const Block& block : held) {
    given_back += commits_.decommit_inside(block.offset_bytes, block.size_bytes, refused);
  }
  bool ends = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Block& block : held) {
      blocks_.free(block.node, block.generation);
    }
    publish_view();
    ends = should_end_reservation();
  }
  if (ends) {
    reservation_.release();
  }
  return given_back;
}

void Heap::close() noexcept {
  bool ends = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    publish_view();
    ends = should_end_reservation();
  }
  if (ends) {
    reservation_.release();
  }
}

HeapStatistics Heap::statistics() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  HeapStatistics statistics;
  statistics.index = index_;
  statistics.capacity_bytes = capacity_bytes_;
  statistics.used_bytes = counters_.live_bytes;
  statistics.peak_used_bytes = peak_used_bytes_;
  statistics.free_bytes = blocks_.free_bytes();
  statistics.largest_free_bytes = blocks_.largest_free_bytes();
  statistics.committed_bytes = reservation_ended_ ? 0 : commits_.committed_bytes();
  statistics.free_block_count = blocks_.free_block_count();
  statistics.counters = counters_;
  statistics.counters.allocations -= baseline_.allocations;
  statistics.counters.deallocations -= baseline_.deallocations;
  statistics.counters.requested_bytes -= baseline_.requested_bytes;
  return statistics;
}

void Heap::reset_statistics() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  baseline_ = counters_;
  counters_.largest_request_bytes = 0;
  peak_used_bytes_ = counters_.live_bytes;
}

}  // namespace tierpool
