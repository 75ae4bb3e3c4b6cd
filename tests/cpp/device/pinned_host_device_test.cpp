#include "tierpool/device/pinned_host_device.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "contracts/device_contract.hpp"
#include "device/cuda_fixture.hpp"
#include "support/child_process.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"

namespace tierpool::testing {

struct MakeFakePinned {
  static constexpr const char* kName = "pinned";
  static std::shared_ptr<Device> make() { return make_fake_device<PinnedHostDevice>(); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(FakePinned, DeviceContract, MakeFakePinned);

namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;

class PinnedHostDeviceTest : public FakeCudaTest {
 protected:
  [[nodiscard]] PinnedHostDevice make(bool write_combined = false) {
    return PinnedHostDevice(0, {.write_combined = write_combined}, *driver_);
  }
};

TEST_F(PinnedHostDeviceTest, AReservationIsRegisteredWholeFromItsFirstCommitToItsLastDecommit) {
  PinnedHostDevice device = make();
  const Reservation range = device.reserve(8 * kGranule);
  EXPECT_EQ(fake_cuda_pinned_bytes(), 0u);
  ASSERT_TRUE(device.commit(range.address + kGranule, kGranule));
  EXPECT_EQ(fake_cuda_pinned_bytes(), 8 * kGranule);
  ASSERT_TRUE(device.commit(range.address + 5 * kGranule, 3 * kGranule));
  EXPECT_EQ(fake_cuda_calls("cuMemHostRegister_v2"), 1u);
  EXPECT_EQ(device.decommittable(range.address + 5 * kGranule, 3 * kGranule).bytes, 0u);
  EXPECT_EQ(device.decommittable(range.address, range.bytes).bytes, range.bytes);
  ASSERT_TRUE(device.decommit(range.address + 5 * kGranule, 3 * kGranule));
  EXPECT_EQ(fake_cuda_pinned_bytes(), 8 * kGranule);
  ASSERT_TRUE(device.decommit(range.address + kGranule, kGranule));
  EXPECT_EQ(fake_cuda_pinned_bytes(), 0u);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  EXPECT_EQ(*static_cast<char*>(pointer_at(range.address + 7 * kGranule)), 0);
  device.release(range);
}

TEST_F(PinnedHostDeviceTest, AFailingRegistrationIsUndoneAndMayBeRepeated) {
  PinnedHostDevice device = make();
  const Reservation range = device.reserve(3 * kGranule);
  fake_cuda_fail("cuMemHostRegister_v2", 999, 0, 1);
  EXPECT_FALSE(device.commit(range.address, kGranule));
  EXPECT_NE(device.fault().find("cuMemHostRegister failed"), std::string::npos);
  EXPECT_EQ(fake_cuda_pinned_bytes(), 0u);
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  EXPECT_TRUE(device.commit(range.address, kGranule));
  device.release(range);
}

TEST_F(PinnedHostDeviceTest, PagesTheDriverKeepsAreUsedAgain) {
  PinnedHostDevice device = make();
  const Reservation range = device.reserve(kGranule);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  fake_cuda_fail("cuMemHostUnregister", 999, 0, 1);
  EXPECT_FALSE(device.decommit(range.address, kGranule));
  EXPECT_TRUE(device.commit(range.address, kGranule));
  EXPECT_EQ(fake_cuda_calls("cuMemHostRegister_v2"), 1u);
  device.release(range);
}

TEST_F(PinnedHostDeviceTest, LargeDirectAllocationsAreRegisteredSmallOnesTheDrivers) {
  PinnedHostDevice device = make();
  const DirectAllocation small = device.allocate_direct(1000, 256);
  const DirectAllocation large = device.allocate_direct(3 * kMiB + 1, 256);
  const DirectAllocation aligned = device.allocate_direct(1000, kMiB);
  ASSERT_TRUE(small && large && aligned);
  EXPECT_EQ(fake_cuda_calls("cuMemHostAlloc"), 1u);
  EXPECT_EQ(fake_cuda_calls("cuMemHostRegister_v2"), 2u);
  EXPECT_EQ(fake_cuda_pinned_bytes(), 1000 + 3 * kMiB + 4096 + 4096);
  device.free_direct(small.address, 1000, 256);
  device.free_direct(large.address, 3 * kMiB + 1, 256);
  device.free_direct(aligned.address, 1000, kMiB);
  fake_cuda_fail("cuMemHostRegister_v2", kCuOutOfMemory, 0, 1);
  EXPECT_FALSE(device.allocate_direct(3 * kMiB, 256));
  fake_cuda_fail("cuMemHostAlloc", kCuOutOfMemory, 0, 1);
  EXPECT_FALSE(device.allocate_direct(1000, 256));
  EXPECT_EQ(device.fault(), "");
}

TEST_F(PinnedHostDeviceTest, WriteCombinedMemoryComesFromTheDriverAtOnce) {
  PinnedHostDevice device = make(true);
  EXPECT_EQ(device.name(), "pinned-write-combined");
  const Reservation range = device.reserve(kMiB + 1);
  EXPECT_EQ(range.bytes % device.granularity_bytes(), 0u);
  EXPECT_EQ(fake_cuda_pinned_bytes(), range.bytes);
  EXPECT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_FALSE(device.decommit(range.address, range.bytes));
  const DirectAllocation direct = device.allocate_direct(5 * kMiB, 256);
  ASSERT_TRUE(direct);
  EXPECT_EQ(fake_cuda_calls("cuMemHostAlloc"), 2u);
  device.free_direct(direct.address, 5 * kMiB, 256);
  device.release(range);
  EXPECT_THROW(static_cast<void>(device.reserve(0)), DeviceError);
  fake_cuda_fail("cuMemHostAlloc", kCuOutOfMemory, 0, 1);
  EXPECT_THROW(static_cast<void>(device.reserve(1)), DeviceError);
}

TEST_F(PinnedHostDeviceTest, WrongDevicesAreRefused) {
  EXPECT_THROW(PinnedHostDevice(2, {}, *driver_), DeviceError);
  EXPECT_EQ(PinnedHostDevice(1, {}, *driver_).name(), "pinned:1");
}

TEST_F(PinnedHostDeviceTest, AForkedChildKeepsItsPagesAndCallsNoDriver) {
  PinnedHostDevice device = make();
  const Reservation range = device.reserve(kGranule);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  *static_cast<char*>(pointer_at(range.address)) = 7;
  const std::uint64_t calls = fake_cuda_calls("cuMemHostUnregister");
  EXPECT_EQ(exit_status_of_child([&] {
              bool good = *static_cast<char*>(pointer_at(range.address)) == 7;
              good = good && !device.commit(range.address, kGranule) && !device.decommit(range.address, kGranule);
              good = good && !device.allocate_direct(1, 256);
              device.release(range);
              return good && fake_cuda_calls("cuMemHostUnregister") == calls ? 0 : 1;
            }),
            0);
  device.release(range);
}

}  // namespace
}  // namespace tierpool::testing
