#pragma once

#include "bindings.hpp"
#include "tierpool/device/stream.hpp"

namespace tierpool::bindings {

/// The handle behind a `stream` argument: an int, None or null for the default stream, or an object with
/// `__cuda_stream__()`, `cuda_stream` (PyTorch), `ptr` (CuPy) or `handle` (Numba). Throws TypeError for anything else,
/// ValueError for a negative handle.
[[nodiscard]] StreamHandle parse_stream(py::handle stream);

/// Whether a call's first keyword is "stream", without an exception.
[[nodiscard]] bool is_stream_name(PyObject* names) noexcept;

}  // namespace tierpool::bindings
