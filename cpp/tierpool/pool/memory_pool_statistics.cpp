// What a pool knows of itself, over all its lanes at one moment.

#include <algorithm>
#include <deque>
#include <mutex>

#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// Holds a pool still, with all its lanes if it is the home lane: nothing comes, goes or changes its place.
class MemoryPool::Picture {
 public:
  explicit Picture(const MemoryPool& pool) : lanes_lock_(*pool.lanes_), pending_lock_(pool.lanes_->pending) {
    add(pool);
    if (pool.is_home()) {
      for (const auto& lane : pool.lanes_->further()) {
        add(*lane);
      }
    }
  }

  struct Lane {
    explicit Lane(const MemoryPool& lane)
        : pool(lane), standstill(lane.caches_), fallbacks(lane.fallbacks_.statistics()) {}
    const MemoryPool& pool;
    ThreadCaches::Standstill standstill;
    FallbackStatistics fallbacks;  // read here, so that one lane's locks are taken before the next one's, as for a fork
  };
  [[nodiscard]] std::deque<Lane>& lanes() noexcept { return lanes_; }
  [[nodiscard]] std::vector<HeapStatistics> heaps() {
    std::vector<HeapStatistics> all;
    for (Lane& lane : lanes_) {
      lane.pool.add_heaps(lane.standstill, all);
    }
    return all;
  }

 private:
  void add(const MemoryPool& pool) { lanes_.emplace_back(pool); }

  const std::lock_guard<StreamLanes> lanes_lock_;
  const std::lock_guard<PendingReleases> pending_lock_;
  std::deque<Lane> lanes_;
};

void MemoryPool::add_heaps(ThreadCaches::Standstill& standstill, std::vector<HeapStatistics>& all) const {
  const std::vector<EventCounters> counters = standstill.counters();
  const std::vector<ParkedTotals> parked = standstill.parked();
  for (std::size_t index = 0; index < heaps_.size(); ++index) {
    HeapStatistics& heap = all.emplace_back(heaps_[index]->statistics(counters[index], parked[index], pending_[index]));
    heap.index = static_cast<std::uint32_t>(all.size() - 1);
    heap.stream = is_home() ? kDefaultStream : stream_.handle;
    heap.counters = heap.counters.since(baselines_[index], config_.track_statistics);
  }
}

std::vector<HeapStatistics> MemoryPool::heaps() const { return Picture(*this).heaps(); }

PoolStatistics MemoryPool::statistics() const {
  PoolStatistics total;
  Picture picture(*this);
  total.stream_lanes = picture.lanes().size();
  for (const Picture::Lane& lane : picture.lanes()) {
    total.add(lane.fallbacks);
    total.fallback_pending_bytes += lane.pool.pending_fallback_bytes_;
  }
  for (const HeapStatistics& heap : picture.heaps()) {
    total.add(heap);
    total.used_bytes += heap.used_bytes;
    total.peak_used_bytes += heap.peak_used_bytes;
  }
  if (is_home()) {
    // Not the sum over the heaps, which were not all looked at in the same moment: the peak must never fall below it.
    total.used_bytes = lanes_->used.used() - total.cached_bytes - total.pending_bytes;
    total.peak_used_bytes = std::max(lanes_->used.peak(), total.used_bytes);
  }
  // Calls are in flight while this is read: the peak must never fall below its own parts.
  const std::uint64_t taken_bytes = total.used_bytes + total.cached_bytes + total.pending_bytes +
                                    total.fallback_used_bytes + total.fallback_pending_bytes;
  total.peak_taken_bytes = std::max({lanes_->taken.used(), lanes_->taken.peak(), taken_bytes});
  total.reserved_bytes = lanes_->memory.bytes.used();
  total.peak_reserved_bytes = std::max(lanes_->memory.bytes.peak(), total.reserved_bytes);
  total.device_allocations = config_.track_statistics ? lanes_->memory.allocations() : 0;
  total.device_frees = config_.track_statistics ? lanes_->memory.frees() : 0;
  if (total.stream_lanes > 1) {
    // Lanes have addresses of their own but share what may be committed.
    total.capacity_bytes = lanes_->commit_limit.max_bytes();
    total.free_bytes = total.capacity_bytes - total.used_bytes - total.cached_bytes - total.pending_bytes;
    total.largest_free_bytes = std::min(total.largest_free_bytes, total.free_bytes);
  }
  return total;
}

void MemoryPool::reset_statistics() {
  Picture picture(*this);
  for (Picture::Lane& lane : picture.lanes()) {
    const_cast<MemoryPool&>(lane.pool).reset_statistics(lane.standstill);
  }
  lanes_->used.reset_peak();
  lanes_->taken.reset_peak();
  lanes_->memory.reset();
}

void MemoryPool::reset_statistics(ThreadCaches::Standstill& standstill) {
  const std::vector<EventCounters> counters = standstill.counters();
  const std::vector<ParkedTotals> parked = standstill.parked();
  for (std::size_t index = 0; index < heaps_.size(); ++index) {
    baselines_[index] = heaps_[index]->statistics(counters[index], parked[index]).counters;
    heaps_[index]->reset_statistics();
  }
  standstill.forget_largest_requests();
  fallbacks_.reset_statistics();
}

}  // namespace tierpool
