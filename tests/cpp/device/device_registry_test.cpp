#include "tierpool/device/device_registry.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_driver.hpp"

namespace tierpool {
namespace {

std::string refusal(const std::string& name) {
  try {
    static_cast<void>(make_device(name));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(DeviceRegistry, KnowsTheDevicesOfThisBuild) {
  EXPECT_EQ(device_names(), (std::vector<std::string>{"host", "simulated", "cuda", "pinned", "pinned-write-combined"}));
}

TEST(DeviceRegistry, MakesTheDevicesEveryMachineHas) {
  for (const char* name : {"host", "simulated"}) {
    EXPECT_EQ(make_device(name)->name(), name);
  }
}

TEST(DeviceRegistry, CudaDevicesAreMadeOrTheReasonIsGiven) {
  const CudaDriver& driver = CudaDriver::instance();
  for (const std::string name : {"cuda", "cuda:0", "pinned", "pinned:0", "pinned-write-combined"}) {
    try {
      const std::string made = make_device(name)->name();
      EXPECT_TRUE(driver.is_available());
      EXPECT_EQ(made.substr(0, 4), name.substr(0, 4));
    } catch (const DeviceError& error) {
      EXPECT_FALSE(driver.is_available());
      EXPECT_EQ(error.what(), "Device cuda:0 is not available: " + driver.unavailable_reason());
    }
  }
  EXPECT_THROW(static_cast<void>(make_device("cuda:4096")), DeviceError);
  EXPECT_THROW(static_cast<void>(make_device("pinned:4096")), DeviceError);
}

TEST(DeviceRegistry, SimulatedDevicesAreIndependent) { EXPECT_NE(make_device("simulated"), make_device("simulated")); }

TEST(DeviceRegistry, UnknownNamesGetTheNearestKnownOne) {
  EXPECT_NE(refusal("hots").find("unknown device 'hots': did you mean 'host'?"), std::string::npos);
  EXPECT_NE(refusal("Simulate").find("did you mean 'simulated'?"), std::string::npos);
  EXPECT_NE(refusal("").find("unknown device ''"), std::string::npos);
}

TEST(DeviceRegistry, NamesAreExact) {
  EXPECT_NE(refusal("HOST"), "accepted");
  EXPECT_NE(refusal("host "), "accepted");
}

TEST(DeviceRegistry, IndicesAreWholeNumbersOfDevicesThatHaveThem) {
  for (const char* name :
       {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999", "cuda0", "host:0", "pinned:+1"}) {
    EXPECT_NE(refusal(name).find("unknown device '" + std::string(name) + "'"), std::string::npos) << name;
  }
}

TEST(DeviceRegistry, AnnouncedDevicesAreNotTakenForMistakes) {
  EXPECT_EQ(refusal("metal"), "device 'metal' is not available in this version: choose 'host'");
}

}  // namespace
}  // namespace tierpool
