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

// PyGILState_Check() says yes to any thread after finalisation, or once there was a second interpreter.
bool holds_gil() noexcept {
  const PyThreadState* own = PyGILState_GetThisThreadState();
  return own != nullptr && own == py::detail::get_thread_state_unchecked();
}

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
