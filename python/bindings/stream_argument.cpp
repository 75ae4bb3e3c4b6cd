#include "stream_argument.hpp"

#include <string>

#include "arguments.hpp"

namespace tierpool::bindings {
namespace {

py::object attribute_of(py::handle object, const char* name) { return py::getattr(object, name, py::none()); }

/// The integer handle inside a stream object; None when it is none.
py::object handle_in(py::handle stream) {
  const py::object protocol = attribute_of(stream, "__cuda_stream__");
  if (!protocol.is_none()) {
    // A method by the protocol; early versions of it had a property.
    const py::object pair = PyCallable_Check(protocol.ptr()) != 0 ? protocol() : protocol;
    return py::reinterpret_borrow<py::object>(py::cast<py::tuple>(pair)[1]);
  }
  for (const char* name : {"cuda_stream", "ptr", "handle"}) {
    py::object handle = attribute_of(stream, name);
    if (!handle.is_none()) {
      if (!py::hasattr(handle, "value")) {
        return handle;
      }
      // Numba's is a ctypes pointer, whose value is None for the default stream.
      const py::object value = handle.attr("value");
      return value.is_none() ? py::object(py::int_(0)) : value;
    }
  }
  return py::none();
}

}  // namespace

StreamHandle parse_stream(py::handle stream) {
  if (stream.ptr() == nullptr || stream.is_none()) {
    return kDefaultStream;
  }
  if (PyIndex_Check(stream.ptr()) != 0) {
    return parse_bytes(stream, "stream");
  }
  const py::object handle = handle_in(stream);
  if (handle.is_none() || PyIndex_Check(handle.ptr()) == 0) {
    throw py::type_error(std::string("stream must be an integer handle, None, or a stream of PyTorch, CuPy, Numba or "
                                     "another library with __cuda_stream__, got ") +
                         Py_TYPE(stream.ptr())->tp_name);
  }
  return parse_bytes(handle, "stream");
}

bool is_stream_name(PyObject* names) noexcept {
  static PyObject* const stream_name = PyUnicode_InternFromString("stream");
  PyObject* name = PyTuple_GET_ITEM(names, 0);
  return name == stream_name || PyUnicode_CompareWithASCIIString(name, "stream") == 0;
}

}  // namespace tierpool::bindings
