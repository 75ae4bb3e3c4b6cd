#pragma once

#include "bindings.hpp"

namespace tierpool::bindings {

// How a lease shows its memory, as CPython calls it: the buffer protocol, NumPy arrays, the array interface, DLPack.
// All show the lease's dtype and shape, count as views and raise StaleBufferError for a lease that has ended.

[[nodiscard]] int get_buffer(PyObject* self, Py_buffer* view, int flags);
void release_buffer(PyObject* self, Py_buffer* view);

[[nodiscard]] PyObject* view_as_array(PyObject* self, PyObject* arguments, PyObject* keywords);
[[nodiscard]] PyObject* get_array_interface(PyObject* self, void* closure);

[[nodiscard]] PyObject* view_as_dlpack(PyObject* self, PyObject* arguments, PyObject* keywords);
[[nodiscard]] PyObject* dlpack_device_of(PyObject* self, PyObject* unused);

}  // namespace tierpool::bindings
