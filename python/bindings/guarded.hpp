#pragma once

#include "bindings.hpp"

namespace tierpool::bindings {

/// Runs the body of a function that CPython calls directly: its py::object becomes a new reference, its C++ exception
/// a Python error and null, as pybind11 has it for what it binds.
template <typename Body>
[[nodiscard]] PyObject* guarded(Body body) noexcept {
  try {
    return body().release().ptr();
  } catch (...) {
    py::detail::try_translate_exceptions();
  }
  return nullptr;
}

}  // namespace tierpool::bindings
