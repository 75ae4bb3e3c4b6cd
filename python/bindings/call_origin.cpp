#include "call_origin.hpp"

#include "bindings.hpp"

namespace tierpool::bindings {
namespace {

std::string place_of(PyFrameObject* frame) {
  const auto code = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
  return py::cast<std::string>(code.attr("co_filename")) + ":" + std::to_string(PyFrame_GetLineNumber(frame)) + " in " +
         py::cast<std::string>(code.attr("co_name"));
}

bool is_of(py::handle frame, std::string_view package) {
  const py::object name = frame.attr("f_globals").attr("get")("__name__", "");
  return py::isinstance<py::str>(name) &&
         (py::cast<std::string>(name) + ".").substr(0, package.size() + 1) == std::string(package) + ".";
}

}  // namespace

std::string call_origin() {
  PyFrameObject* frame = PyEval_GetFrame();
  return frame == nullptr ? "unknown place (no Python frame)" : place_of(frame);
}

std::string call_origin_outside(std::string_view package) {
  auto frame = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  while (frame && !frame.is_none() && is_of(frame, package)) {
    frame = frame.attr("f_back");
  }
  return frame && !frame.is_none() ? place_of(reinterpret_cast<PyFrameObject*>(frame.ptr())) : call_origin();
}

}  // namespace tierpool::bindings
