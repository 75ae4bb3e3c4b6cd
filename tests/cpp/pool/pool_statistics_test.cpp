#include "tierpool/pool/pool_statistics.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tierpool {
namespace {

[[nodiscard]] std::string verdict_on(const std::string& metric, const PoolStatistics& statistics) {
  for (const Finding& finding : diagnose(statistics)) {
    if (finding.metric == metric) {
      EXPECT_FALSE(finding.advice.empty());
      return finding.verdict;
    }
  }
  return "none";
}

/// Of a thousand allocations.
[[nodiscard]] PoolStatistics with_hits(std::uint64_t hits) {
  PoolStatistics statistics;
  statistics.total_allocations = 1000;
  statistics.fallback_allocations = 1000 - hits;
  return statistics;
}

/// Of a thousand bytes.
[[nodiscard]] PoolStatistics with_used(std::uint64_t used) {
  PoolStatistics statistics;
  statistics.capacity_bytes = 1000;
  statistics.used_bytes = used;
  return statistics;
}

using Verdicts = std::vector<std::pair<std::uint64_t, std::string>>;

TEST(Diagnose, HitRateIsJudgedByTheGuidesTargets) {
  for (const auto& [hits, verdict] : Verdicts{{1000, "excellent"},
                                              {951, "excellent"},
                                              {950, "good"},
                                              {900, "good"},
                                              {899, "fair"},
                                              {800, "fair"},
                                              {799, "poor"},
                                              {0, "poor"}}) {
    EXPECT_EQ(verdict_on("hit_rate", with_hits(hits)), verdict) << hits;
  }
}

TEST(Diagnose, UtilizationIsJudgedByTheGuidesTargets) {
  for (const auto& [used, verdict] : Verdicts{{0, "over-provisioned"},
                                              {499, "over-provisioned"},
                                              {500, "optimal"},
                                              {800, "optimal"},
                                              {801, "under-provisioned"},
                                              {950, "under-provisioned"},
                                              {951, "critical"},
                                              {1000, "critical"}}) {
    EXPECT_EQ(verdict_on("utilization", with_used(used)), verdict) << used;
  }
}

TEST(Diagnose, FallbackRateIsJudgedByTheGuidesTargets) {
  for (const auto& [fallbacks, verdict] : Verdicts{{0, "excellent"},
                                                   {1, "acceptable"},
                                                   {49, "acceptable"},
                                                   {50, "fair"},
                                                   {100, "fair"},
                                                   {101, "poor"},
                                                   {1000, "poor"}}) {
    EXPECT_EQ(verdict_on("fallback_rate", with_hits(1000 - fallbacks)), verdict) << fallbacks;
  }
}

TEST(Diagnose, FindingsComeInOneOrderWithTheirValues) {
  PoolStatistics statistics = with_hits(970);
  statistics.capacity_bytes = 4;
  statistics.used_bytes = 3;
  const std::vector<Finding> findings = diagnose(statistics);
  ASSERT_EQ(findings.size(), 3u);
  EXPECT_EQ(findings[0].metric, "hit_rate");
  EXPECT_DOUBLE_EQ(findings[0].value, 0.97);
  EXPECT_EQ(findings[1].metric, "utilization");
  EXPECT_DOUBLE_EQ(findings[1].value, 0.75);
  EXPECT_EQ(findings[2].metric, "fallback_rate");
  EXPECT_DOUBLE_EQ(findings[2].value, 0.03);
}

TEST(Diagnose, WithoutAllocationsOnlyUtilizationIsJudged) {
  const std::vector<Finding> findings = diagnose(PoolStatistics{});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].metric, "utilization");
  EXPECT_EQ(findings[0].verdict, "over-provisioned");
}

TEST(PoolStatistics, RatiosOfNothingAreZero) {
  const PoolStatistics nothing;
  EXPECT_EQ(nothing.hit_rate(), 0.0);
  EXPECT_EQ(nothing.fallback_rate(), 0.0);
  EXPECT_EQ(nothing.utilization(), 0.0);
  EXPECT_EQ(nothing.fragmentation(), 0.0);
  EXPECT_EQ(nothing.average_allocation_bytes(), 0.0);
  EXPECT_EQ(HeapStatistics{}.utilization(), 0.0);
  EXPECT_EQ(HeapStatistics{}.fragmentation(), 0.0);
}

TEST(PoolStatistics, RatiosFollowTheirFormulas) {
  PoolStatistics statistics = with_hits(750);
  statistics.requested_bytes = 5000;
  statistics.capacity_bytes = 1000;
  statistics.used_bytes = 600;
  statistics.free_bytes = 400;
  statistics.contiguous_free_bytes = 100;
  statistics.total_heaps = 4;
  statistics.active_heaps = 3;
  EXPECT_DOUBLE_EQ(statistics.hit_rate(), 0.75);
  EXPECT_DOUBLE_EQ(statistics.fallback_rate(), 0.25);
  EXPECT_DOUBLE_EQ(statistics.utilization(), 0.6);
  EXPECT_DOUBLE_EQ(statistics.fragmentation(), 0.75);
  EXPECT_DOUBLE_EQ(statistics.average_allocation_bytes(), 5.0);
  EXPECT_EQ(statistics.available_count(), 1u);
}

TEST(PoolStatistics, FragmentationOfAHeapComparesItsLargestFreeBlockWithAllThatIsFree) {
  HeapStatistics heap;
  heap.capacity_bytes = 1000;
  heap.used_bytes = 200;
  heap.free_bytes = 800;
  heap.largest_free_bytes = 200;
  EXPECT_DOUBLE_EQ(heap.fragmentation(), 0.75);
  EXPECT_DOUBLE_EQ(heap.utilization(), 0.2);
}

TEST(EventCounters, SumsOfWhatIsCountedInDifferentPlacesAreTrue) {
  Allocation buffer;
  buffer.requested_bytes = 1000;
  buffer.block_bytes = 1024;
  Allocation array = buffer;
  array.holder = Holder::array;
  EventCounters here;
  EventCounters there;
  here.count_allocation(buffer);
  here.count_allocation(array);
  EXPECT_EQ(here.allocations, 2u);
  EXPECT_EQ(here.requested_bytes, 2000u);
  EXPECT_EQ(here.largest_request_bytes, 1000u);
  EXPECT_EQ(here.live_arrays, 1u);
  EXPECT_EQ(here.live_array_bytes, 1024u);
  there.count_deallocation(array);
  there.add(here);
  EXPECT_EQ(there.deallocations, 1u);
  EXPECT_EQ(there.live_arrays, 0u);
  EXPECT_EQ(there.live_array_bytes, 0u);
}

TEST(EventCounters, OnlyTrackedEventsAreShownAndWhatIsLiveAlways) {
  EventCounters baseline;
  baseline.count_allocation(1000);
  EventCounters now = baseline;
  now.count_allocation(500);
  now.add_array(512);
  const EventCounters tracked = now.since(baseline, true);
  EXPECT_EQ(tracked.allocations, 1u);
  EXPECT_EQ(tracked.requested_bytes, 500u);
  EXPECT_EQ(tracked.live_arrays, 1u);
  const EventCounters untracked = now.since(baseline, false);
  EXPECT_EQ(untracked.allocations, 0u);
  EXPECT_EQ(untracked.largest_request_bytes, 0u);
  EXPECT_EQ(untracked.live_array_bytes, 512u);
}

}  // namespace
}  // namespace tierpool
