#pragma once

#include <string>

namespace tierpool::bindings {

/// Where the running Python code stands: "path/file.py:12 in function". Needs the GIL.
[[nodiscard]] std::string call_origin();

}  // namespace tierpool::bindings
