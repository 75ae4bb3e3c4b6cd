#include "tierpool/device/device_registry.hpp"

#include <algorithm>
#include <array>

#include "tierpool/base/choice.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

struct DeviceKind {
  std::string_view name;
  std::shared_ptr<Device> (*make)();
};

constexpr std::array kDeviceKinds{
    DeviceKind{"host", [] { return std::shared_ptr<Device>(std::make_shared<HostDevice>()); }},
    DeviceKind{"simulated", [] { return std::shared_ptr<Device>(std::make_shared<SimulatedDevice>()); }},
};

bool is_announced(std::string_view name) {
  return name == "pinned" || name == "metal" || name == "cuda" || name.starts_with("cuda:");
}

}  // namespace

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  names.reserve(kDeviceKinds.size());
  for (const DeviceKind& kind : kDeviceKinds) {
    names.emplace_back(kind.name);
  }
  return names;
}

std::shared_ptr<Device> make_device(std::string_view name) {
  if (is_announced(name)) {
    throw ConfigError("device '" + std::string(name) + "' is not available in this version: choose 'host'");
  }
  std::array<std::string_view, kDeviceKinds.size()> known;
  std::ranges::transform(kDeviceKinds, known.begin(), &DeviceKind::name);
  return kDeviceKinds[index_of_choice("device", name, known)].make();
}

}  // namespace tierpool
