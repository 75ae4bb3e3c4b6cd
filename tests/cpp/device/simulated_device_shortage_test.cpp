// The process itself runs out of memory while the simulated device keeps its books.
#include <gtest/gtest.h>

#include <cstdint>

#include "support/limited_new.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

using testing::allocations_left;
using testing::kUnlimited;

constexpr std::uint64_t kGranule = 2 * kMiB;

TEST(SimulatedDeviceShortage, CommitFailsAndCanBeRepeated) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(8 * kGranule);
  allocations_left = 3;
  const bool committed = device.commit(range.address, range.bytes);
  allocations_left = kUnlimited;
  EXPECT_FALSE(committed);
  EXPECT_EQ(device.committed_bytes(), 3 * kGranule);
  EXPECT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_EQ(device.committed_bytes(), range.bytes);
  device.release(range);
  EXPECT_EQ(device.committed_bytes(), 0u);
}

TEST(SimulatedDeviceShortage, DirectAllocationFailsAndTakesNothing) {
  SimulatedDevice device(kGiB);
  allocations_left = 0;
  const DirectAllocation refused = device.allocate_direct(1000, 256);
  allocations_left = kUnlimited;
  EXPECT_FALSE(refused);
  EXPECT_EQ(device.direct_bytes(), 0u);
  const DirectAllocation served = device.allocate_direct(1000, 256);
  EXPECT_TRUE(served);
  device.free_direct(served.address, 1000, 256);
  EXPECT_EQ(device.misuse_count(), 0u);
}

TEST(SimulatedDeviceShortage, GivingBackNeedsNoMemory) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(8 * kGranule);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  const DirectAllocation direct = device.allocate_direct(1000, 256);
  allocations_left = 0;
  const bool decommitted = device.decommit(range.address, kGranule);
  device.free_direct(direct.address, 1000, 256);
  device.release(range);
  allocations_left = kUnlimited;
  EXPECT_TRUE(decommitted);
  EXPECT_EQ(device.free_bytes(), kGiB);
}

}  // namespace
}  // namespace tierpool
