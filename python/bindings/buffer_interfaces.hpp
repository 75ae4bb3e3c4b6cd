#pragma once

#include "buffer_type.hpp"

namespace tierpool::bindings {

/// `Buffer.__array_interface__`, version 3. Throws BufferError for memory that the processor cannot reach: were it an
/// AttributeError, NumPy would take the buffer for a scalar and make an array of objects.
[[nodiscard]] PyObject* get_buffer_interface(PyObject* self, void* closure);

/// `Buffer.__cuda_array_interface__`, version 3. Throws AttributeError for other memory than a GPU's, because consumers
/// ask by hasattr().
[[nodiscard]] PyObject* get_cuda_interface(PyObject* self, void* closure);

}  // namespace tierpool::bindings
