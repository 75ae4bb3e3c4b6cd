#include "tierpool/pool/pool_statistics.hpp"

#include <algorithm>
#include <span>
#include <string_view>

namespace tierpool {
namespace {

double ratio(std::uint64_t part, std::uint64_t whole) noexcept {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

struct Band {
  double from;
  bool includes_from;
  std::string_view verdict;
  std::string_view advice;

  [[nodiscard]] bool holds(double value) const noexcept { return value > from || (includes_from && value == from); }
};

// The guide's bands. Each list runs from high to low and ends with a band that takes the rest.
constexpr Band kHitRate[] = {
    {0.95, false, "excellent", "Pool sized correctly."},
    {0.90, true, "good", "Minor tuning needed: raise heap_size_mb or num_heaps a little."},
    {0.80, true, "fair", "Increase heap_size_mb or num_heaps."},
    {0.00, true, "poor", "Pool too small: increase heap_size_mb above the largest allocation, and num_heaps."},
};
constexpr Band kUtilization[] = {
    {0.95, false, "critical", "Pool near exhaustion: increase heap_size_mb or num_heaps."},
    {0.80, false, "under-provisioned", "Pool heavily utilized: consider expansion."},
    {0.50, true, "optimal", "Pool utilization optimal."},
    {0.00, true, "over-provisioned", "Reduce num_heaps or heap_size_mb to save memory."},
};
constexpr Band kFallbackRate[] = {
    {0.10, false, "poor", "Frequent fallbacks: pool too small, increase heap_size_mb or num_heaps."},
    {0.05, true, "fair", "Some fallbacks: consider increasing capacity."},
    {0.00, false, "acceptable", "Rare fallbacks."},
    {0.00, true, "excellent", "No fallbacks: pool perfectly sized."},
};

Finding judge(std::string_view metric, double value, std::span<const Band> bands) {
  const auto band = std::find_if(bands.begin(), bands.end() - 1, [value](const Band& one) { return one.holds(value); });
  return {std::string(metric), value, std::string(band->verdict), std::string(band->advice)};
}

}  // namespace

void EventCounters::add(const EventCounters& other) noexcept {
  allocations += other.allocations;
  deallocations += other.deallocations;
  requested_bytes += other.requested_bytes;
  largest_request_bytes = std::max(largest_request_bytes, other.largest_request_bytes);
  live_arrays += other.live_arrays;
  live_array_bytes += other.live_array_bytes;
}

EventCounters EventCounters::since(const EventCounters& baseline, bool track_events) const noexcept {
  EventCounters events;
  events.live_arrays = live_arrays;
  events.live_array_bytes = live_array_bytes;
  if (track_events) {
    events.allocations = allocations - baseline.allocations;
    events.deallocations = deallocations - baseline.deallocations;
    events.requested_bytes = requested_bytes - baseline.requested_bytes;
    events.largest_request_bytes = largest_request_bytes;
  }
  return events;
}

double HeapStatistics::utilization() const noexcept { return ratio(used_bytes, capacity_bytes); }

double HeapStatistics::fragmentation() const noexcept {
  return ratio(free_bytes - std::min(free_bytes, largest_free_bytes), free_bytes);
}

void PoolStatistics::add(const EventCounters& counters) noexcept {
  total_allocations += counters.allocations;
  total_deallocations += counters.deallocations;
  active_arrays += counters.live_arrays;
  array_bytes += counters.live_array_bytes;
  requested_bytes += counters.requested_bytes;
  largest_allocation_bytes = std::max(largest_allocation_bytes, counters.largest_request_bytes);
}

void PoolStatistics::add(const HeapStatistics& heap) noexcept {
  add(heap.counters);
  active_allocations += heap.live_count;
  ++total_heaps;
  active_heaps += heap.live_count != 0 ? 1 : 0;
  capacity_bytes += heap.capacity_bytes;
  cached_bytes += heap.cached_bytes;
  pending_bytes += heap.pending_bytes;
  committed_bytes += heap.committed_bytes;
  free_bytes += heap.free_bytes;
  contiguous_free_bytes += heap.largest_free_bytes;
  largest_free_bytes = std::max(largest_free_bytes, heap.largest_free_bytes);
}

void PoolStatistics::add(const FallbackStatistics& fallback) noexcept {
  add(fallback.counters);
  fallback_allocations += fallback.counters.allocations;
  active_allocations += fallback.live_count;
  fallback_used_bytes += fallback.live_bytes;
  exhaustion_events += fallback.exhaustion_events;
}

double PoolStatistics::hit_rate() const noexcept {
  return ratio(total_allocations - fallback_allocations, total_allocations);
}

double PoolStatistics::fallback_rate() const noexcept { return ratio(fallback_allocations, total_allocations); }

double PoolStatistics::utilization() const noexcept { return ratio(used_bytes, capacity_bytes); }

double PoolStatistics::fragmentation() const noexcept {
  return ratio(free_bytes - std::min(free_bytes, contiguous_free_bytes), free_bytes);
}

double PoolStatistics::average_allocation_bytes() const noexcept { return ratio(requested_bytes, total_allocations); }

std::vector<Finding> diagnose(const PoolStatistics& statistics) {
  std::vector<Finding> findings;
  if (statistics.total_allocations != 0) {
    findings.push_back(judge("hit_rate", statistics.hit_rate(), kHitRate));
  }
  findings.push_back(judge("utilization", statistics.utilization(), kUtilization));
  if (statistics.total_allocations != 0) {
    findings.push_back(judge("fallback_rate", statistics.fallback_rate(), kFallbackRate));
  }
  return findings;
}

}  // namespace tierpool
