#pragma once

#include <cstdint>
#include <vector>

#include "bindings.hpp"

namespace tierpool::bindings {

/// A size in bytes from any Python integer. Throws TypeError for other types, ValueError for negative values and
/// OverflowError above 2**63 - 1; the messages name the argument and the value.
[[nodiscard]] std::uint64_t parse_bytes(py::handle value, const char* name);

/// Sizes from a one-dimensional integer array or any iterable of integers. Throws as parse_bytes().
[[nodiscard]] std::vector<std::uint64_t> parse_sizes(py::handle sizes);

}  // namespace tierpool::bindings
