#include "tierpool/device/simulated_device.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "contracts/device_contract.hpp"
#include "support/child_process.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

struct MakeSimulated {
  static constexpr const char* kName = "simulated";
  static std::shared_ptr<Device> make() { return std::make_shared<SimulatedDevice>(kGiB); }
};

}  // namespace

namespace testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Simulated, DeviceContract, MakeSimulated);
}  // namespace testing

namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;

TEST(SimulatedDevice, HasTheSizeItIsGiven) {
  const SimulatedDevice device(80 * kGiB, 64 * kKiB);
  EXPECT_EQ(device.total_bytes(), 80 * kGiB);
  EXPECT_EQ(device.free_bytes(), 80 * kGiB);
  EXPECT_EQ(device.granularity_bytes(), 64 * kKiB);
  EXPECT_FALSE(device.host_accessible());
}

TEST(SimulatedDevice, RefusesAGranularityThatIsNoPowerOfTwo) {
  EXPECT_THROW(SimulatedDevice(kGiB, 3 * kMiB), ConfigError);
  EXPECT_THROW(SimulatedDevice(kGiB, 0), ConfigError);
}

TEST(SimulatedDevice, CountsWhatIsReservedCommittedAndDirect) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(10 * kGranule);
  EXPECT_EQ(device.reserved_bytes(), 10 * kGranule);
  EXPECT_EQ(device.free_bytes(), kGiB);
  ASSERT_TRUE(device.commit(range.address, 3 * kGranule));
  ASSERT_TRUE(device.commit(range.address + kGranule, 4 * kGranule));
  EXPECT_EQ(device.committed_bytes(), 5 * kGranule);
  const DirectAllocation direct = device.allocate_direct(1000, 256);
  EXPECT_EQ(device.direct_bytes(), 1000u);
  EXPECT_EQ(device.free_bytes(), kGiB - 5 * kGranule - 1000);
  ASSERT_TRUE(device.decommit(range.address + 4 * kGranule, 6 * kGranule));
  EXPECT_EQ(device.committed_bytes(), 4 * kGranule);
  device.free_direct(direct.address, 1000, 256);
  device.release(range);
  EXPECT_EQ(device.reserved_bytes(), 0u);
  EXPECT_EQ(device.committed_bytes(), 0u);
  EXPECT_EQ(device.free_bytes(), kGiB);
  EXPECT_EQ(device.misuse_count(), 0u);
}

TEST(SimulatedDevice, CommitBeyondItsSizeIsOutOfMemory) {
  SimulatedDevice device(4 * kGranule);
  const Reservation range = device.reserve(8 * kGranule);
  EXPECT_FALSE(device.commit(range.address, 5 * kGranule));
  EXPECT_EQ(device.committed_bytes(), 0u);
  EXPECT_TRUE(device.commit(range.address, 3 * kGranule));
  EXPECT_FALSE(device.commit(range.address + 2 * kGranule, 3 * kGranule));
  EXPECT_TRUE(device.commit(range.address, 4 * kGranule));  // only one of them is new
  EXPECT_EQ(device.free_bytes(), 0u);
  EXPECT_EQ(device.misuse_count(), 0u);
}

TEST(SimulatedDevice, CommittedAndDirectBytesShareItsSize) {
  SimulatedDevice device(4 * kGranule);
  const Reservation range = device.reserve(4 * kGranule);
  ASSERT_TRUE(device.commit(range.address, 3 * kGranule));
  EXPECT_FALSE(device.allocate_direct(kGranule + 1, 256));
  const DirectAllocation direct = device.allocate_direct(kGranule, 256);
  EXPECT_TRUE(direct);
  EXPECT_FALSE(device.allocate_direct(1, 1));
  EXPECT_FALSE(device.commit(range.address, 4 * kGranule));
  device.free_direct(direct.address, kGranule, 256);
  EXPECT_TRUE(device.commit(range.address, 4 * kGranule));
}

TEST(SimulatedDevice, AddressesAreNeverHandedOutTwice) {
  SimulatedDevice device(kGiB);
  const Reservation first = device.reserve(kGranule);
  device.release(first);
  EXPECT_GE(device.reserve(kGranule).address, first.address + kGranule);
  const DirectAllocation direct = device.allocate_direct(100, 4);
  device.free_direct(direct.address, 100, 4);
  EXPECT_GE(device.allocate_direct(100, 4).address, direct.address + 100);
}

TEST(SimulatedDeviceFailures, EveryCallOfAKindFailsUntilRecovery) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(2 * kGranule);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  device.fail(DeviceCall::reserve);
  device.fail(DeviceCall::commit);
  device.fail(DeviceCall::decommit);
  device.fail(DeviceCall::allocate_direct);
  device.fail(DeviceCall::copy);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW(static_cast<void>(device.reserve(kGranule)), DeviceError);
    EXPECT_FALSE(device.commit(range.address, 2 * kGranule));
    EXPECT_FALSE(device.decommit(range.address, kGranule));
    EXPECT_FALSE(device.allocate_direct(100, 256));
    EXPECT_THROW(device.copy(range.address, range.address + 100, 100), DeviceError);
  }
  EXPECT_EQ(device.reserved_bytes(), 2 * kGranule);
  EXPECT_EQ(device.committed_bytes(), kGranule);
  EXPECT_EQ(device.misuse_count(), 0u);
  device.recover();
  EXPECT_NO_THROW(device.release(device.reserve(kGranule)));
  EXPECT_TRUE(device.commit(range.address, 2 * kGranule));
  EXPECT_TRUE(device.allocate_direct(100, 256));
  EXPECT_NO_THROW(device.copy(range.address, range.address + 100, 100));
  EXPECT_TRUE(device.decommit(range.address, kGranule));
}

TEST(SimulatedDeviceFailures, BeginAfterAndEndAsOrdered) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(kGranule);
  device.fail(DeviceCall::commit, 2, 3);
  std::string outcome;
  for (int i = 0; i < 8; ++i) {
    outcome += device.commit(range.address, kGranule) ? '+' : '-';
  }
  EXPECT_EQ(outcome, "++---+++");
  EXPECT_EQ(device.call_count(DeviceCall::commit), 8u);
}

TEST(SimulatedDeviceFailures, LaterOrderReplacesTheEarlierOfItsKindOnly) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(kGranule);
  device.fail(DeviceCall::commit);
  device.fail(DeviceCall::decommit);
  device.fail(DeviceCall::commit, 0, 0);
  EXPECT_TRUE(device.commit(range.address, kGranule));
  EXPECT_FALSE(device.decommit(range.address, kGranule));
}

TEST(SimulatedDeviceFailures, CallsAreCountedByKind) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(kGranule);
  static_cast<void>(device.commit(range.address, kGranule));
  static_cast<void>(device.commit(range.address, kGranule));
  static_cast<void>(device.decommit(range.address, kGranule));
  EXPECT_EQ(device.call_count(DeviceCall::reserve), 1u);
  EXPECT_EQ(device.call_count(DeviceCall::commit), 2u);
  EXPECT_EQ(device.call_count(DeviceCall::decommit), 1u);
  EXPECT_EQ(device.call_count(DeviceCall::allocate_direct), 0u);
  EXPECT_EQ(device.call_count(DeviceCall::copy), 0u);
}

TEST(SimulatedDevice, ChildrenOfAForkFindItUnlocked) {
  SimulatedDevice device(kGiB);
  const Reservation range = device.reserve(64 * kGranule);
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    while (!stop.load()) {
      static_cast<void>(device.commit(range.address, range.bytes));
      static_cast<void>(device.decommit(range.address, range.bytes));
    }
  });
  int sound = 0;
  // Ends with the first child that waits for a lock nobody holds.
  while (sound < 50 && testing::exit_status_of_child([&device, &range] {
                         return device.decommit(range.address, range.bytes) && device.free_bytes() == kGiB ? 0 : 1;
                       }) == 0) {
    ++sound;
  }
  stop.store(true);
  worker.join();
  EXPECT_EQ(sound, 50);
}

class SimulatedDeviceMisuse : public ::testing::Test {
 protected:
  SimulatedDevice device_{kGiB};
  Reservation range_ = device_.reserve(4 * kGranule);
};

TEST_F(SimulatedDeviceMisuse, CommitAndDecommitOutsideOneReservation) {
  static_cast<void>(device_.reserve(4 * kGranule));
  EXPECT_FALSE(device_.commit(range_.address + range_.bytes, kGranule));
  EXPECT_FALSE(device_.commit(range_.address - kGranule, kGranule));
  EXPECT_FALSE(device_.commit(range_.address, 5 * kGranule));
  EXPECT_FALSE(device_.decommit(range_.address + 3 * kGranule, 2 * kGranule));
  EXPECT_FALSE(device_.decommit(kGranule, kGranule));
  EXPECT_EQ(device_.misuse_count(), 5u);
}

TEST_F(SimulatedDeviceMisuse, CommitAndDecommitOfPartsOfGranules) {
  EXPECT_FALSE(device_.commit(range_.address, kGranule - 1));
  EXPECT_FALSE(device_.commit(range_.address + 4096, kGranule));
  EXPECT_FALSE(device_.decommit(range_.address, 4096));
  EXPECT_EQ(device_.misuse_count(), 3u);
  EXPECT_EQ(device_.committed_bytes(), 0u);
}

TEST_F(SimulatedDeviceMisuse, ReleaseTwiceOrOfAnotherRange) {
  device_.release({.address = range_.address, .bytes = kGranule});
  device_.release({.address = range_.address + kGranule, .bytes = kGranule});
  EXPECT_EQ(device_.misuse_count(), 2u);
  device_.release(range_);
  EXPECT_EQ(device_.misuse_count(), 2u);
  device_.release(range_);
  EXPECT_EQ(device_.misuse_count(), 3u);
  EXPECT_FALSE(device_.commit(range_.address, kGranule));
  EXPECT_EQ(device_.misuse_count(), 4u);
}

TEST_F(SimulatedDeviceMisuse, FreeTwiceOrWithOtherArguments) {
  const DirectAllocation direct = device_.allocate_direct(1000, 256);
  device_.free_direct(direct.address, 999, 256);
  device_.free_direct(direct.address, 1000, 512);
  device_.free_direct(direct.address + 1, 1000, 256);
  EXPECT_EQ(device_.misuse_count(), 3u);
  EXPECT_EQ(device_.direct_bytes(), 1000u);
  device_.free_direct(direct.address, 1000, 256);
  EXPECT_EQ(device_.misuse_count(), 3u);
  device_.free_direct(direct.address, 1000, 256);
  EXPECT_EQ(device_.misuse_count(), 4u);
  EXPECT_EQ(device_.direct_bytes(), 0u);
}

TEST_F(SimulatedDeviceMisuse, DirectAllocationWithAnAlignmentItDoesNotServe) {
  EXPECT_FALSE(device_.allocate_direct(1000, 3));
  EXPECT_FALSE(device_.allocate_direct(1000, 0));
  EXPECT_FALSE(device_.allocate_direct(1000, 2 * kGranule));
  EXPECT_EQ(device_.misuse_count(), 3u);
}

TEST_F(SimulatedDeviceMisuse, CopyOfMemoryThatIsNotThereOrOverlaps) {
  ASSERT_TRUE(device_.commit(range_.address, 2 * kGranule));
  const DirectAllocation direct = device_.allocate_direct(1000, 256);
  EXPECT_NO_THROW(device_.copy(range_.address + 5, direct.address, 1000));
  EXPECT_NO_THROW(device_.copy(direct.address + 500, range_.address + kGranule - 5, 500));
  EXPECT_EQ(device_.misuse_count(), 0u);
  EXPECT_THROW(device_.copy(range_.address, range_.address + kGranule, kGranule + 1), DeviceError);
  EXPECT_THROW(device_.copy(range_.address + 2 * kGranule, direct.address, 1), DeviceError);
  EXPECT_THROW(device_.copy(range_.address, direct.address + 1, 1000), DeviceError);
  EXPECT_THROW(device_.copy(range_.address, range_.address + 99, 100), DeviceError);
  EXPECT_EQ(device_.misuse_count(), 4u);
}

}  // namespace
}  // namespace tierpool
