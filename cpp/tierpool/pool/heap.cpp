#include "tierpool/pool/heap.hpp"

#include <algorithm>
#include <vector>

#include "tierpool/pool/pool_log.hpp"

namespace tierpool {

Heap::Heap(Device& device, UsedBytes& used, const Options& options)
    : device_(device),
      used_(used),
      index_(options.index),
      capacity_bytes_(options.capacity_bytes),
      await_streams_(options.await_streams),
      array_nodes_(options.capacity_bytes / kUnitBytes),
      reservation_(device, options.capacity_bytes),
      commits_(device, reservation_.get(), options.capacity_bytes, options.commit_limit, options.memory),
      blocks_(options.capacity_bytes, options.placement),
      written_end_bytes_(device.commits_zeroed() ? 0 : options.capacity_bytes) {
  if (device.commit_scope() == CommitScope::always) {
    bool complete = false;
    commits_.commit(0, capacity_bytes_,
                    complete);  // counts what is taken already; where it fails, the first block does
  }
  publish_view();
}

Heap::~Heap() {
  if (closed_ && !reservation_ended_) {
    reservation_.abandon();
    PoolLog::memory_kept(commits_.committed_bytes());
  }
}

void Heap::publish_view() noexcept {
  used_hint_.store(blocks_.used_bytes(), std::memory_order_relaxed);
  // Released, so that whoever sees that nothing is left also sees the trim or close() that took it.
  largest_free_hint_.store(closed_ ? 0 : blocks_.largest_free_upper_bound_bytes(), std::memory_order_release);
}

HeapView Heap::view() const noexcept {
  return {used_hint_.load(std::memory_order_relaxed), largest_free_hint_.load(std::memory_order_acquire)};
}

void Heap::add_taken(std::uint64_t bytes) noexcept {
  ++taken_count_;
  taken_bytes_ += bytes;
  peak_used_bytes_ = std::max(peak_used_bytes_, taken_bytes_);
  used_.add(bytes);
}

void Heap::add_to_counters(const Allocation& allocation) noexcept {
  add_taken(allocation.block_bytes);
  counters_.count_allocation(allocation);
}

void Heap::subtract_taken(std::uint64_t bytes) noexcept {
  --taken_count_;
  taken_bytes_ -= bytes;
  used_.subtract(bytes);
}

std::uint64_t Heap::note_written(const Block& block) noexcept {
  const std::uint64_t end_bytes = block.offset_bytes + block.size_bytes;
  const std::uint64_t dirty_end = std::clamp(written_end_bytes_, block.offset_bytes, end_bytes);
  written_end_bytes_ = std::max(written_end_bytes_, end_bytes);
  return dirty_end - block.offset_bytes;
}

Block Heap::find_block(std::uint64_t bytes, std::uint64_t alignment_bytes, std::uint32_t lane) noexcept {
  return closed_ ? Block{} : blocks_.allocate(bytes, alignment_bytes, lane);
}

void Heap::hand_out(const Block& block, Allocation& request) noexcept {
  request.address = reservation_.address() + block.offset_bytes;
  request.block_bytes = block.size_bytes;
  request.dirty_bytes = note_written(block);
  request.heap_index = index_;
  request.node = block.node;
  request.generation = block.generation;
  note_array(request);
  publish_view();
}

Heap::TakeResult Heap::take(Allocation& request, const TakeOptions& options) noexcept {
  const TakeResult result = take_committed(request, options);
  return result == TakeResult::needs_commit && options.may_commit ? take_and_commit(request, options) : result;
}

Heap::TakeResult Heap::take_committed(Allocation& request, const TakeOptions& options) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  const Block block =
      find_block(std::max(options.block_bytes, request.requested_bytes), options.alignment_bytes, options.lane);
  if (!block) {
    return TakeResult::full;
  }
  if (!commits_.covers(block.offset_bytes, block.size_bytes)) {
    blocks_.free(block.node, block.generation);
    return TakeResult::needs_commit;
  }
  hand_out(block, request);
  if (options.counted) {
    add_to_counters(request);
  }
  return TakeResult::taken;
}

// Under the commit map's lock throughout: a fork then never finds a block between taken and counted.
Heap::TakeResult Heap::take_and_commit(Allocation& request, const TakeOptions& options) noexcept {
  const std::lock_guard<CommitMap> committing(commits_);
  {
    const std::lock_guard<SpinLock> lock(lock_);
    const Block block =
        find_block(std::max(options.block_bytes, request.requested_bytes), options.alignment_bytes, options.lane);
    if (!block) {
      return TakeResult::full;
    }
    hand_out(block, request);
  }
  bool complete = false;
  commits_.commit(offset_of(request.address), request.block_bytes, complete);
  return finish_commit(request, complete, options.counted) ? TakeResult::taken : TakeResult::full;
}

bool Heap::finish_commit(Allocation& request, bool complete, bool counted) noexcept {
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    if (!complete) {
      take_back(request);
      ends = should_end_reservation();
    } else if (counted) {
      add_to_counters(request);
    }
  }
  if (ends) {
    end_reservation();
  }
  request.address = complete ? request.address : 0;
  return complete;
}

std::size_t Heap::take_parked(std::uint64_t block_bytes, std::uint32_t lane, std::span<ParkedBlock> blocks) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  std::size_t count = 0;
  for (; count < blocks.size(); ++count) {
    const Block block = find_block(block_bytes, kUnitBytes, lane);
    if (!block) {
      break;
    }
    if (!commits_.covers(block.offset_bytes, block.size_bytes)) {
      blocks_.free(block.node, block.generation);
      break;
    }
    blocks[count] = {reservation_.address() + block.offset_bytes, index_, block.node, block.generation};
    static_cast<void>(note_written(block));
    add_taken(block.size_bytes);
  }
  publish_view();
  return count;
}

void Heap::count(const Allocation& allocation) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  add_to_counters(allocation);
}

bool Heap::should_end_reservation() noexcept {
  if (!closed_ || reservation_ended_ || pins_ != 0 || blocks_.live_count() != 0) {
    return false;
  }
  reservation_ended_ = true;
  return true;
}

bool Heap::have_streams_finished() noexcept {
  DeviceStreams* streams = device_.streams();
  return await_streams_ ? await_streams_() : streams == nullptr || streams->synchronize_device();
}

void Heap::end_reservation() noexcept {
  if (commits_.committed_bytes() != 0 && !have_streams_finished()) {
    const std::lock_guard<SpinLock> lock(lock_);
    reservation_ended_ = false;
    return;
  }
  reservation_.release();
  commits_.forget();
}

void Heap::take_back(const Allocation& allocation) noexcept {
  forget_array(allocation);
  blocks_.free(allocation.node, allocation.generation);
  publish_view();
}

void Heap::undo(const Allocation& allocation) noexcept {
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    take_back(allocation);
    ends = should_end_reservation();
  }
  if (ends) {
    end_reservation();
  }
}

void Heap::give_back(std::span<const ParkedBlock> blocks, bool are_unused) noexcept {
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    for (const ParkedBlock& block : blocks) {
      if (block.heap_index == index_) {
        subtract_taken(blocks_.free(block.node, block.generation));
        returned_count_.fetch_add(are_unused ? 0 : 1, std::memory_order_relaxed);
      }
    }
    publish_view();
    ends = should_end_reservation();
  }
  if (ends) {
    end_reservation();
  }
}

std::optional<ParkedBlock> Heap::defer(const Allocation& allocation) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  if (!is_live(allocation) || !blocks_.find(allocation.node, offset_of(allocation.address))) {
    return std::nullopt;
  }
  counters_.count_deallocation(allocation);
  forget_array(allocation);
  return park(allocation);
}

ReleaseResult Heap::release(const Allocation& allocation, const ReleaseOptions& options) noexcept {
  ReleaseResult result = ReleaseResult::stale;
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    if (!is_live(allocation) || !blocks_.find(allocation.node, offset_of(allocation.address))) {
      return result;
    }
    counters_.count_deallocation(allocation);
    subtract_taken(allocation.block_bytes);
    take_back(allocation);
    returned_count_.fetch_add(options.behind_tail ? 0 : 1, std::memory_order_relaxed);
    result = orphaned_ ? ReleaseResult::released_orphan : ReleaseResult::released;
    ends = should_end_reservation();
    if (ends) {
      options.ends_late.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (ends) {
    end_reservation();
    options.ends_late.fetch_sub(1, std::memory_order_release);
  }
  return result;
}

std::uint64_t Heap::orphan() noexcept {
  std::uint64_t live = 0;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    orphaned_ = true;
    live = blocks_.live_count();
  }
  close();
  return live;
}

Allocation Heap::find_array(std::uint64_t address) noexcept {
  if (!contains(address) || offset_of(address) % kUnitBytes != 0) {
    return {};
  }
  const std::uint32_t entry = array_nodes_[offset_of(address) / kUnitBytes];
  const Block block = entry == 0 ? Block{} : blocks_.find(entry - 1, offset_of(address));
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
    const std::lock_guard<SpinLock> lock(lock_);
    complete = !closed_;
    if (closed_) {
      return 0;
    }
    ++pins_;
  }
  std::uint64_t newly_committed = 0;
  {
    const std::lock_guard<CommitMap> committing(commits_);
    newly_committed = commits_.commit(offset_bytes, bytes, complete);
  }
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    --pins_;
    ends = should_end_reservation();
  }
  if (ends) {
    end_reservation();
  }
  return newly_committed;
}

std::uint64_t Heap::trim(bool& refused, const TrimOptions& options) {
  if (commits_.committed_bytes() == 0) {
    return 0;
  }
  const std::uint64_t granularity = commits_.granularity_bytes();
  const std::uint64_t cut_off = capacity_bytes_ % granularity;
  std::vector<Block> held;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    if (closed_) {
      return 0;
    }
    held = blocks_.take_free_blocks(cut_off == 0 ? granularity : cut_off);
    publish_view();
  }
  std::uint64_t given_back = 0;
  if (!options.is_unused || options.is_unused()) {
    const std::lock_guard<CommitMap> committing(commits_);
    for (auto block = held.rbegin(); block != held.rend() && given_back < options.enough_bytes; ++block) {
      given_back += commits_.decommit_inside(block->offset_bytes, block->size_bytes, refused);
    }
  }
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    for (const Block& block : held) {
      blocks_.free(block.node, block.generation);
    }
    publish_view();
    ends = should_end_reservation();
  }
  if (ends) {
    end_reservation();
  }
  return given_back;
}

void Heap::close() noexcept {
  bool ends = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    closed_ = true;
    publish_view();
    ends = should_end_reservation();
  }
  if (ends) {
    end_reservation();
  }
}

HeapStatistics Heap::statistics(const EventCounters& cached, const ParkedTotals& parked,
                                const ParkedTotals& pending) const {
  const std::lock_guard<SpinLock> lock(lock_);
  HeapStatistics statistics;
  statistics.index = index_;
  statistics.capacity_bytes = capacity_bytes_;
  statistics.used_bytes = taken_bytes_ - parked.bytes - pending.bytes;
  statistics.peak_used_bytes = peak_used_bytes_;
  statistics.free_bytes = blocks_.free_bytes();
  statistics.largest_free_bytes = blocks_.largest_free_bytes();
  statistics.committed_bytes = reservation_ended_ ? 0 : commits_.committed_bytes();
  statistics.cached_bytes = parked.bytes;
  statistics.pending_bytes = pending.bytes;
  statistics.free_block_count = blocks_.free_block_count();
  statistics.live_count = taken_count_ - parked.count - pending.count;
  statistics.counters = counters_;
  statistics.counters.add(cached);
  return statistics;
}

void Heap::reset_statistics() noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  counters_.largest_request_bytes = 0;
  peak_used_bytes_ = taken_bytes_;
}

}  // namespace tierpool
