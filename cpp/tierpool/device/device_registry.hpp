#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tierpool/device/device.hpp"

namespace tierpool {

/// The names make_device() accepts on this machine.
[[nodiscard]] std::vector<std::string> device_names();

/// The device of that name; ConfigError names the nearest known one otherwise. Thread-safe.
[[nodiscard]] std::shared_ptr<Device> make_device(std::string_view name);

}  // namespace tierpool
