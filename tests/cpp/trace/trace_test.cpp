#include "tierpool/trace/trace.hpp"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/trace_script.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::make_trace;
using testing::TraceLine;

std::string error_of(const std::vector<TraceLine>& lines) {
  try {
    static_cast<void>(make_trace(lines));
  } catch (const TraceError& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(const std::vector<TraceLine>& lines, const std::vector<std::string>& parts) {
  const std::string message = error_of(lines);
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is missing in: " << message;
  }
}

TEST(Trace, CountsEventsAllocationsAndThePeak) {
  const Trace trace = make_trace({{'a', 0, 100}, {'a', 1, 200}, {'f', 0, 100}, {'a', 2, 50}, {'f', 1, 200}});
  EXPECT_EQ(trace.event_count(), 5U);
  EXPECT_EQ(trace.allocation_count(), 3U);
  EXPECT_EQ(trace.peak_live_bytes(), 300U);
}

TEST(Trace, MayBeEmpty) {
  const Trace trace = make_trace({});
  EXPECT_EQ(trace.event_count(), 0U);
  EXPECT_EQ(trace.slot_count(), 0U);
  EXPECT_EQ(trace.peak_live_bytes(), 0U);
}

TEST(Trace, SlotsAreDenseAndBelongToOneLiveAllocationEach) {
  const Trace trace =
      make_trace({{'a', 7'000'000'000, 1}, {'a', 3, 2}, {'f', 7'000'000'000, 1}, {'a', UINT64_MAX, 3}, {'f', 3, 2}});
  EXPECT_EQ(trace.slot_count(), 2U);
  EXPECT_EQ(trace.events()[2].slot, trace.events()[0].slot);
  EXPECT_NE(trace.events()[3].slot, trace.events()[1].slot);
  EXPECT_EQ(trace.events()[4].slot, trace.events()[1].slot);
}

TEST(Trace, AnIdMayBeUsedAgainAfterItsFree) {
  const Trace trace = make_trace({{'a', 5, 10}, {'f', 5, 10}, {'a', 5, 99}, {'f', 5, 99}});
  EXPECT_EQ(trace.allocation_count(), 2U);
  EXPECT_EQ(trace.peak_live_bytes(), 99U);
}

TEST(Trace, AllocationsNeedNotBeFreed) { EXPECT_EQ(make_trace({{'a', 1, 10}, {'a', 0, 0}}).peak_live_bytes(), 10U); }

TEST(Trace, RefusesAFreeOfAnUnknownId) {
  expect_error({{'a', 0, 1}, {'f', 42, 1}}, {"line 4:", "id 42", "never allocated"});
}

TEST(Trace, RefusesASecondFree) {
  expect_error({{'a', 8, 1}, {'f', 8, 1}, {'f', 8, 1}}, {"line 5:", "id 8", "freed again, after line 4"});
}

TEST(Trace, RefusesAnIdThatIsLive) {
  expect_error({{'a', 8, 1}, {'a', 9, 1}, {'a', 8, 1}}, {"line 5:", "id 8", "live since line 3"});
}

TEST(Trace, RefusesAFreeOfAnotherSize) {
  expect_error({{'a', 8, 512}, {'f', 8, 511}}, {"line 4:", "id 8", "511 bytes", "512 in line 3"});
}

TEST(Trace, RefusesAnUnknownOperation) {
  expect_error({{'a', 8, 512}, {'x', 8, 512}}, {"line 4:", "operation 120", "'a' allocates, 'f' frees"});
}

TEST(Trace, RefusesMoreThanAnExbibyteLiveAtOnce) {
  const std::uint64_t half = kGiB * kGiB / 2;
  EXPECT_EQ(make_trace({{'a', 0, half}, {'a', 1, half}}).peak_live_bytes(), 2 * half);
  expect_error({{'a', 0, half}, {'a', 1, half}, {'a', 2, 1}}, {"line 5:", "id 2", "1 EiB"});
  expect_error({{'a', 0, UINT64_MAX}}, {"line 3:", "18446744073709551615"});
}

TEST(Trace, RefusesColumnsOfDifferentLengths) {
  const std::array<std::uint8_t, 2> ops = {'a', 'a'};
  const std::array<std::uint64_t, 2> ids = {0, 1};
  const std::array<std::uint64_t, 1> bytes = {16};
  EXPECT_THROW(Trace(ops, ids, bytes, 3), std::invalid_argument);
}

}  // namespace
}  // namespace tierpool
