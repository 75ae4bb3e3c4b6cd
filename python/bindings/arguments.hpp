#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bindings.hpp"

namespace tierpool::bindings {

/// A size in bytes from any Python integer. Throws TypeError for other types, ValueError for negative values and
/// OverflowError above 2**63 - 1; the messages name the argument and the value.
[[nodiscard]] std::uint64_t parse_bytes(py::handle value, const char* name);

/// The same for an exact int in range, without an exception: false leaves any other value to parse_bytes().
[[nodiscard]] inline bool read_bytes(PyObject* value, std::uint64_t& bytes) noexcept {
  if (!PyLong_CheckExact(value)) {
    return false;
  }
  int overflow = 0;
  const long long read = PyLong_AsLongLongAndOverflow(value, &overflow);
  bytes = static_cast<std::uint64_t>(read);
  return overflow == 0 && read >= 0;
}

/// The arguments of a METH_FASTCALL call and the names of those given by keyword, if any.
struct CallArguments {
  PyObject* const* values;
  Py_ssize_t positional_count;
  PyObject* names;
};

/// Sorts a call's arguments into the places of `parameters`; a place that stays null was not given. Throws TypeError
/// as Python does, also when one of the first `required_count` is missing.
void bind_arguments(const char* function, std::span<const char* const> parameters, const CallArguments& given,
                    std::size_t required_count, std::span<PyObject*> places);
template <std::size_t kCount>
[[nodiscard]] std::array<PyObject*, kCount> bind_arguments(const char* function,
                                                           const std::array<const char*, kCount>& parameters,
                                                           const CallArguments& given, std::size_t required_count = 1) {
  std::array<PyObject*, kCount> places{};
  bind_arguments(function, parameters, given, required_count, places);
  return places;
}

/// Sizes from a one-dimensional integer array or any iterable of integers. Throws as parse_bytes().
[[nodiscard]] std::vector<std::uint64_t> parse_sizes(py::handle sizes);

}  // namespace tierpool::bindings
