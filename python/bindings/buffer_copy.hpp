#pragma once

#include "buffer_type.hpp"

namespace tierpool::bindings {

/// `Buffer.copy_from(source, stream=None)`: all bytes of the source, to the beginning of the buffer.
[[nodiscard]] PyObject* copy_from(PyObject* self, PyObject* arguments, PyObject* keywords);
/// `Buffer.copy_to(destination, stream=None)`: the beginning of the buffer, as many bytes as the destination has.
[[nodiscard]] PyObject* copy_to(PyObject* self, PyObject* arguments, PyObject* keywords);

}  // namespace tierpool::bindings
