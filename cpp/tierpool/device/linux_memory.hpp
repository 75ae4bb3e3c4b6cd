#pragma once

#include <string>

#include "tierpool/device/host_pages.hpp"

namespace tierpool {

/// Reads /proc/meminfo and the memory limits of this process's control group and its parents (versions 1 and 2), all
/// under the directory `root` ("" for the machine itself). What cannot be read does not limit. Thread-safe.
[[nodiscard]] HostMemory read_linux_memory(const std::string& root);

}  // namespace tierpool
