#include "tierpool/device/device_registry.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "tierpool/base/choice.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

using DevicePointer = std::shared_ptr<Device>;

struct DeviceKind {
  std::string_view name;
  bool numbered;  ///< whether ":1" may follow
  DevicePointer (*make)(int index);
};

constexpr std::array kDeviceKinds{
    DeviceKind{"host", false, [](int) -> DevicePointer { return std::make_shared<HostDevice>(); }},
    DeviceKind{"simulated", false, [](int) -> DevicePointer { return std::make_shared<SimulatedDevice>(); }},
    DeviceKind{"cuda", true, [](int index) -> DevicePointer { return std::make_shared<CudaDevice>(index); }},
    DeviceKind{"pinned", true, [](int index) -> DevicePointer { return std::make_shared<PinnedHostDevice>(index); }},
    DeviceKind{"pinned-write-combined", true,
               [](int index) -> DevicePointer {
                 return std::make_shared<PinnedHostDevice>(index, PinnedHostDeviceOptions{.write_combined = true});
               }},
};

/// Of "cuda:1" 1, of "cuda" 0, and -1 of what names no device of this kind.
int index_in(std::string_view name, const DeviceKind& kind) {
  if (name == kind.name) {
    return 0;
  }
  if (!kind.numbered || !name.starts_with(kind.name) || !name.substr(kind.name.size()).starts_with(':')) {
    return -1;
  }
  const std::string_view digits = name.substr(kind.name.size() + 1);
  int index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  return error == std::errc() && end == digits.data() + digits.size() ? index : -1;
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
  if (name == "metal") {
    throw ConfigError("device 'metal' is not available in this version: choose 'host'");
  }
  for (const DeviceKind& kind : kDeviceKinds) {
    if (const int index = index_in(name, kind); index >= 0) {
      return kind.make(index);
    }
  }
  std::array<std::string_view, kDeviceKinds.size()> known;
  std::ranges::transform(kDeviceKinds, known.begin(), &DeviceKind::name);
  return kDeviceKinds[index_of_choice("device", name, known)].make(0);
}

}  // namespace tierpool
