#pragma once

#include <pybind11/pybind11.h>

namespace tierpool::bindings {

namespace py = pybind11;

void bind_errors(py::module_& module);
void bind_device(py::module_& module);
void bind_statistics(py::module_& module);
void bind_buffer(py::module_& module);
void bind_batch(py::module_& module);
void bind_pool(py::module_& module);
void bind_numpy_handler(py::module_& module);
void bind_lease(py::module_& module);
void bind_lease_batch(py::module_& module);
void bind_arena_statistics(py::module_& module);
void bind_arena(py::module_& module);
void bind_trace(py::module_& module);
void bind_engine(py::module_& module);
void bind_torch_allocator(py::module_& module);

}  // namespace tierpool::bindings
