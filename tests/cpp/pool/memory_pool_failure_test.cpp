// Every call of the device fails in turn, once and for good: nothing leaks and the counters stay true.
#include <gtest/gtest.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>

#include "support/captured_log.hpp"
#include "support/pool_scenario.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

struct FailingCall {
  DeviceCall call;
  std::uint64_t times;
  const char* name;

  friend void PrintTo(const FailingCall& failing, std::ostream* stream) { *stream << failing.name; }
};

class MemoryPoolFailureTest : public ::testing::TestWithParam<std::tuple<FailingCall, bool>> {};

bool is_expected(const std::exception& error) {
  return dynamic_cast<const OutOfMemoryError*>(&error) != nullptr ||
         dynamic_cast<const InitializationError*>(&error) != nullptr;
}

TEST_P(MemoryPoolFailureTest, NothingLeaksAndCountersStayTrueWhicheverCallFails) {
  const testing::CapturedLog log;
  const auto& [failing, magazines] = GetParam();
  std::uint64_t after = 0;
  for (bool reached = true; reached && !HasFailure(); ++after) {
    SCOPED_TRACE("after " + std::to_string(after) + " calls that work");
    const auto device = std::make_shared<SimulatedDevice>(kGiB, testing::kGranule);
    device->fail(failing.call, after, failing.times);
    testing::PoolScenario(device, magazines, is_expected).run([](const MemoryPool& pool) {
      testing::expect_identities(pool);
    });
    testing::expect_all_given_back(*device);
    reached = device->call_count(failing.call) > after;
  }
  EXPECT_GT(after, 2u) << "the scenario never makes this call";
}

INSTANTIATE_TEST_SUITE_P(
    DeviceCalls, MemoryPoolFailureTest,
    ::testing::Combine(::testing::Values(FailingCall{DeviceCall::reserve, 1, "reserve_once"},
                                         FailingCall{DeviceCall::reserve, UINT64_MAX, "reserve_from_then_on"},
                                         FailingCall{DeviceCall::commit, 1, "commit_once"},
                                         FailingCall{DeviceCall::commit, UINT64_MAX, "commit_from_then_on"},
                                         FailingCall{DeviceCall::decommit, 1, "decommit_once"},
                                         FailingCall{DeviceCall::decommit, UINT64_MAX, "decommit_from_then_on"},
                                         FailingCall{DeviceCall::allocate_direct, 1, "allocate_direct_once"},
                                         FailingCall{DeviceCall::allocate_direct, UINT64_MAX,
                                                     "allocate_direct_from_then_on"}),
                       ::testing::Bool()),
    [](const auto& test) {
      return std::get<0>(test.param).name + std::string(std::get<1>(test.param) ? "_magazines" : "");
    });

class MemoryPoolShrinkingDevice : public ::testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Magazines, MemoryPoolShrinkingDevice, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "on" : "off"; });

TEST_P(MemoryPoolShrinkingDevice, IsNeverMisusedWhateverItsSize) {
  const testing::CapturedLog log;
  for (std::uint64_t granules = 60; granules >= 8 && !::testing::Test::HasFailure(); --granules) {
    SCOPED_TRACE(std::to_string(granules) + " granules");
    const auto device = std::make_shared<SimulatedDevice>(granules * testing::kGranule, testing::kGranule);
    testing::PoolScenario(device, GetParam(), is_expected).run([](const MemoryPool& pool) {
      testing::expect_identities(pool);
    });
    testing::expect_all_given_back(*device);
  }
}

}  // namespace
}  // namespace tierpool
