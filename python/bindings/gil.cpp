#include "gil.hpp"

#include <unistd.h>

namespace tierpool::bindings {
namespace {

[[noreturn]] void stop_for_good() noexcept {
  while (true) {
    pause();
  }
}

}  // namespace

void take_gil_back(PyThreadState* state) noexcept {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    stop_for_good();
  }
}

PyObject* call_python(py::handle callable, const py::tuple& arguments, PyObject* keywords) noexcept {
  try {
    return PyObject_Call(callable.ptr(), arguments.ptr(), keywords);
  } catch (...) {
    stop_for_good();
  }
}

}  // namespace tierpool::bindings
