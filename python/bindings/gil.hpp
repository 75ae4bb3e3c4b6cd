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

/// Whether the calling thread has the GIL; also to be asked when there is no Python any more.
[[nodiscard]] bool holds_gil() noexcept;

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

/// The same where it is not known whether the thread has it.
class WithoutGilIfHeld {
 public:
  WithoutGilIfHeld() noexcept : state_(holds_gil() ? PyEval_SaveThread() : nullptr) {}
  ~WithoutGilIfHeld() {
    if (state_ != nullptr) {
      take_gil_back(state_);
    }
  }
  WithoutGilIfHeld(const WithoutGilIfHeld&) = delete;
  WithoutGilIfHeld& operator=(const WithoutGilIfHeld&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace tierpool::bindings
