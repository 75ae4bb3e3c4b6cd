#include "call_origin.hpp"

#include "bindings.hpp"

namespace tierpool::bindings {

std::string call_origin() {
  PyFrameObject* frame = PyEval_GetFrame();
  if (frame == nullptr) {
    return "unknown place (no Python frame)";
  }
  const auto code = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  return py::cast<std::string>(code.attr("co_filename")) + ":" + std::to_string(PyFrame_GetLineNumber(frame)) + " in " +
         py::cast<std::string>(code.attr("co_name"));
}

}  // namespace tierpool::bindings
