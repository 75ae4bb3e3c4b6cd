#pragma once

#include "bindings.hpp"

namespace tierpool::bindings {

// At exit Python ends a thread that waits for the GIL by unwinding its stack. Destructors would then touch Python
// without the GIL and noexcept ones end the process, so such a thread stops for good instead, as Python 3.14 has it.

/// PyEval_RestoreThread() that never unwinds.
void take_gil_back(PyThreadState* state) noexcept;

/// PyObject_Call() that never unwinds. Returns a new reference, or null with a Python error set.
[[nodiscard]] PyObject* call_python(py::handle callable, const py::tuple& arguments,
                                    PyObject* keywords = nullptr) noexcept;

/// Lets the GIL go for as long as it lives.
class WithoutGil {
 public:
  WithoutGil() noexcept : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { take_gil_back(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace tierpool::bindings
