#include "completion_event.hpp"

#include <string>
#include <utility>

#include "gil.hpp"

namespace tierpool::bindings {
namespace {

class PythonEvent final : public CompletionEvent {
 public:
  explicit PythonEvent(py::object event) : event_(std::move(event)) {}
  ~PythonEvent() override {
    if (Py_IsInitialized() == 0) {
      static_cast<void>(event_.release());  // its memory went with the interpreter
      return;
    }
    const py::gil_scoped_acquire with_gil;
    event_ = py::object();
  }
  PythonEvent(const PythonEvent&) = delete;
  PythonEvent& operator=(const PythonEvent&) = delete;

  [[nodiscard]] bool is_complete() noexcept override { return call("is_complete"); }
  void wait() noexcept override { static_cast<void>(call("wait")); }

 private:
  /// Whether the method returned something true.
  [[nodiscard]] bool call(const char* method) noexcept {
    if (Py_IsInitialized() == 0) {
      return true;  // nobody is left who could tell
    }
    const py::gil_scoped_acquire with_gil;
    const py::error_scope keep_pending_error;
    try {
      const auto answer = py::reinterpret_steal<py::object>(call_python(event_.attr(method), py::tuple()));
      if (!answer) {
        throw py::error_already_set();
      }
      return static_cast<bool>(py::bool_(answer));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("a completion event of a buffer pool");
    } catch (const std::exception&) {
      // No memory even to ask: as an event that is not complete.
    }
    return false;
  }

  py::object event_;
};

}  // namespace

std::shared_ptr<CompletionEvent> parse_event(PyObject* event) {
  if (event == nullptr || event == Py_None) {
    return nullptr;
  }
  for (const char* method : {"is_complete", "wait"}) {
    if (!py::hasattr(event, method)) {
      throw py::type_error(std::string("after must have is_complete() and wait(), got ") + Py_TYPE(event)->tp_name);
    }
  }
  return std::make_shared<PythonEvent>(py::reinterpret_borrow<py::object>(event));
}

}  // namespace tierpool::bindings
