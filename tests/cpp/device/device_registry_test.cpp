#include "tierpool/device/device_registry.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"

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
  EXPECT_EQ(device_names(), (std::vector<std::string>{"host", "simulated"}));
}

TEST(DeviceRegistry, MakesEveryDeviceItNames) {
  for (const std::string& name : device_names()) {
    EXPECT_EQ(make_device(name)->name(), name);
  }
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

TEST(DeviceRegistry, AnnouncedDevicesAreNotTakenForMistakes) {
  for (const char* name : {"pinned", "metal", "cuda", "cuda:0", "cuda:12"}) {
    EXPECT_EQ(refusal(name), "device '" + std::string(name) + "' is not available in this version: choose 'host'");
  }
  EXPECT_NE(refusal("cuda0").find("unknown device 'cuda0'"), std::string::npos);
}

}  // namespace
}  // namespace tierpool
