#pragma once

#include "buffer_type.hpp"

namespace tierpool::bindings {

/// `Buffer.copy_from(source, stream=None, *, offset_bytes=0)`: all bytes of the source.
[[nodiscard]] PyObject* copy_from(PyObject* self, PyObject* arguments, PyObject* keywords);
/// `Buffer.copy_from_file(path, stream=None, *, offset_bytes=0, file_offset_bytes=0, nbytes=None)`: to the file's end.
[[nodiscard]] PyObject* copy_from_file(PyObject* self, PyObject* arguments, PyObject* keywords);
/// `Buffer.copy_to(destination, stream=None, *, offset_bytes=0)`: as many bytes as the destination has.
[[nodiscard]] PyObject* copy_to(PyObject* self, PyObject* arguments, PyObject* keywords);

}  // namespace tierpool::bindings
