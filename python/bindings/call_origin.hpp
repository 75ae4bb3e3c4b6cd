#pragma once

#include <string>
#include <string_view>

namespace tierpool::bindings {

/// Where the running Python code stands: "path/file.py:12 in function". Needs the GIL.
[[nodiscard]] std::string call_origin();
/// The same of the innermost code that is not that package's.
[[nodiscard]] std::string call_origin_outside(std::string_view package);

}  // namespace tierpool::bindings
