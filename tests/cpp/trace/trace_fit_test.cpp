#include "tierpool/trace/trace_fit.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/trace_script.hpp"
#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

using testing::make_trace;
using testing::TraceLine;

constexpr Placement kPlacements[] = {Placement::good_fit, Placement::best_fit, Placement::first_fit};

/// Random churn of blocks of up to 1 MiB, the same for the same seed.
Trace churn_trace(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TraceLine> lines;
  std::vector<TraceLine> live;
  for (std::uint64_t id = 0; id < 2'000; ++id) {
    if (live.size() > 200) {
      std::swap(live[random() % live.size()], live.back());
      lines.push_back({'f', live.back().id, live.back().bytes});
      live.pop_back();
    }
    live.push_back({'a', id, random() % kMiB});
    lines.push_back(live.back());
  }
  return make_trace(lines);
}

TEST(TraceFit, AStackNeedsNoMoreThanItsPeak) {
  const Trace trace =
      make_trace({{'a', 0, 512}, {'a', 1, 256}, {'f', 1, 256}, {'a', 2, 768}, {'f', 2, 768}, {'f', 0, 512}});
  for (const Placement placement : kPlacements) {
    EXPECT_EQ(fit_capacity_bytes(trace, placement), 1280U);
  }
}

TEST(TraceFit, CountsWholeUnits) {
  EXPECT_EQ(fit_capacity_bytes(make_trace({{'a', 0, 1}, {'a', 1, 0}, {'a', 2, 257}}), Placement::good_fit), 1024U);
}

TEST(TraceFit, ATraceWithoutAllocationsTakesOneUnit) {
  EXPECT_EQ(fit_capacity_bytes(make_trace({}), Placement::good_fit), kUnitBytes);
}

TEST(TraceFit, SeesHolesThatAreTooSmall) {
  // Two holes of 1 KiB each, apart, then 2 KiB at once: 4 KiB live at most, but not in 4 KiB.
  const Trace trace = make_trace(
      {{'a', 0, 1024}, {'a', 1, 1024}, {'a', 2, 1024}, {'a', 3, 1024}, {'f', 0, 1024}, {'f', 2, 1024}, {'a', 4, 2048}});
  for (const Placement placement : kPlacements) {
    EXPECT_EQ(fit_capacity_bytes(trace, placement), 6 * kKiB);
  }
}

TEST(TraceFit, TheResultServesTheWholeTrace) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const Trace trace = churn_trace(seed);
    for (const Placement placement : kPlacements) {
      const std::uint64_t capacity = fit_capacity_bytes(trace, placement);
      EXPECT_EQ(capacity % kUnitBytes, 0U);
      EXPECT_GE(capacity, trace.peak_live_bytes());
      EXPECT_TRUE(serves_trace(trace, capacity, placement));
      EXPECT_FALSE(serves_trace(trace, trace.peak_live_bytes() - kUnitBytes, placement));
    }
  }
}

TEST(TraceFit, HasNoLimitOf32Bits) {
  const Trace trace = make_trace({{'a', 0, 80 * kGiB}, {'a', 1, 80 * kGiB}});
  EXPECT_EQ(fit_capacity_bytes(trace, Placement::good_fit), 160 * kGiB);
}

}  // namespace
}  // namespace tierpool
