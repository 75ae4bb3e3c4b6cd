#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "bindings.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::bindings {
namespace {

// Borrowed for the life of the process: translators may run until the interpreter ends.
PyObject* tierpool_error = nullptr;
PyObject* config_error = nullptr;
PyObject* trace_error = nullptr;
PyObject* initialization_error = nullptr;
PyObject* pool_closed_error = nullptr;
PyObject* stale_buffer_error = nullptr;
PyObject* device_error = nullptr;
PyObject* read_error = nullptr;
PyObject* cancelled_error = nullptr;
PyObject* budget_error = nullptr;
PyObject* out_of_memory_error = nullptr;

PyObject* new_error(py::module_& module, const char* name, const py::tuple& bases, const char* doc) {
  const std::string qualified = std::string("tierpool.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(qualified.c_str(), doc, bases.ptr(), nullptr);
  if (type == nullptr) {
    throw py::error_already_set();
  }
  module.add_object(name, py::reinterpret_borrow<py::object>(type));
  return type;
}

/// A file's name that an error tells need not be UTF-8: its bytes are kept as Python keeps them in names.
py::object text_of(const std::exception& error) {
  const std::string_view text = error.what();
  PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (decoded == nullptr) {
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(decoded);
}

void raise(PyObject* type, const std::exception& error) { PyErr_SetObject(type, text_of(error).ptr()); }

void raise_out_of_memory(const OutOfMemoryError& error) {
  const py::object raised = py::reinterpret_borrow<py::object>(out_of_memory_error)(text_of(error));
  raised.attr("requested_bytes") = error.details().requested_bytes;
  raised.attr("largest_free_bytes") = error.details().largest_free_bytes;
  raised.attr("free_bytes") = error.details().free_bytes;
  raised.attr("fragmentation") = error.details().fragmentation;
  PyErr_SetObject(out_of_memory_error, raised.ptr());
}

void translate(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(std::move(pointer));
  } catch (const OutOfMemoryError& error) {
    raise_out_of_memory(error);
  } catch (const TraceError& error) {
    raise(trace_error, error);
  } catch (const ConfigError& error) {
    raise(config_error, error);
  } catch (const InitializationError& error) {
    raise(initialization_error, error);
  } catch (const PoolClosedError& error) {
    raise(pool_closed_error, error);
  } catch (const StaleBufferError& error) {
    raise(stale_buffer_error, error);
  } catch (const DeviceError& error) {
    raise(device_error, error);
  } catch (const ReadError& error) {
    raise(read_error, error);
  } catch (const CancelledError& error) {
    raise(cancelled_error, error);
  } catch (const BudgetError& error) {
    raise(budget_error, error);
  } catch (const Error& error) {
    raise(tierpool_error, error);
  }
}

}  // namespace

void bind_errors(py::module_& module) {
  const auto builtin = [](PyObject* type) { return py::reinterpret_borrow<py::object>(type); };
  tierpool_error = new_error(module, "TierpoolError", py::make_tuple(builtin(PyExc_RuntimeError)),
                             "Base of tierpool's own errors, except OutOfMemoryError.");
  const py::object base = builtin(tierpool_error);
  config_error = new_error(module, "ConfigError", py::make_tuple(base, builtin(PyExc_ValueError)),
                           "A configuration value that cannot be used.");
  trace_error = new_error(module, "TraceError", py::make_tuple(base, builtin(PyExc_ValueError)),
                          "An allocation trace that contradicts itself or cannot be read.");
  initialization_error = new_error(module, "InitializationError", py::make_tuple(base), "A pool that cannot be built.");
  pool_closed_error = new_error(module, "PoolClosedError", py::make_tuple(base), "Work asked of a closed pool.");
  stale_buffer_error = new_error(module, "StaleBufferError", py::make_tuple(base),
                                 "A lease that has ended: released, reset, or another pool's.");
  device_error = new_error(module, "DeviceError", py::make_tuple(base), "A device call that failed.");
  read_error = new_error(module, "ReadError", py::make_tuple(base, builtin(PyExc_OSError)),
                         "Weights that did not arrive: the disk failed, or the file was changed, cut or removed.");
  cancelled_error = new_error(module, "CancelledError", py::make_tuple(base),
                              "Work that was given up because it was cancelled or its owner closed.");
  budget_error = new_error(module, "BudgetError", py::make_tuple(base, builtin(PyExc_MemoryError)),
                           "More memory, or more mappings of memory, than were planned for.");
  out_of_memory_error = new_error(module, "OutOfMemoryError", py::make_tuple(builtin(PyExc_MemoryError)),
                                  "No memory for a request.\n\n"
                                  "Attributes\n----------\n"
                                  "requested_bytes, largest_free_bytes, free_bytes : int\n"
                                  "fragmentation : float\n    Share of free bytes outside the largest free blocks.");
  py::register_exception_translator(translate);
}

}  // namespace tierpool::bindings
