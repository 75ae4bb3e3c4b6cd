#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tierpool/device/device.hpp"

namespace tierpool {

/// The kinds of devices make_device() knows, whether or not this machine has one.
[[nodiscard]] std::vector<std::string> device_names();

/// The device of that name, of which "cuda", "pinned" and "pinned-write-combined" may carry an index: "cuda:1".
/// DeviceError says why there is no such device here; ConfigError names the nearest known name. Thread-safe.
[[nodiscard]] std::shared_ptr<Device> make_device(std::string_view name);

}  // namespace tierpool
