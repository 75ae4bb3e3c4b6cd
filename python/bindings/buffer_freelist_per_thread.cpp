#include <array>
#include <cstddef>

#include "bindings.hpp"
#include "buffer_freelist.hpp"

namespace tierpool::bindings {
namespace {

constexpr std::size_t kMaxKept = 1024;

struct ThreadList {
  std::size_t count = 0;
  std::size_t limit = 0;  // 0 until the thread's end is sure to be seen, and after it
  std::array<void*, kMaxKept> kept{};
};

thread_local ThreadList list;

void free_kept(PyObject* /*capsule*/) {
  list.limit = 0;
  while (list.count != 0) {
    PyObject_Free(list.kept[--list.count]);
  }
}

// Python's memory must be freed while the thread still has its state, for which a C++ destructor runs too late: the
// capsule dies with the state's own dictionary.
bool watch_thread_end() noexcept {
  static const char* const key = "tierpool.buffer_freelist";
  PyObject* dictionary = PyThreadState_GetDict();
  if (dictionary == nullptr || PyDict_GetItemString(dictionary, key) != nullptr) {
    return false;
  }
  const py::error_scope keep_pending_error;
  PyObject* capsule = PyCapsule_New(&list, nullptr, free_kept);
  const bool watched = capsule != nullptr && PyDict_SetItemString(dictionary, key, capsule) == 0;
  Py_XDECREF(capsule);
  PyErr_Clear();
  return watched;
}

}  // namespace

void* take_recycled() noexcept { return list.count == 0 ? nullptr : list.kept[--list.count]; }

bool recycle(void* memory) noexcept {
  if (list.count == list.limit) {
    if (list.limit != 0 || !watch_thread_end()) {
      return false;
    }
    list.limit = kMaxKept;
  }
  list.kept[list.count++] = memory;
  return true;
}

}  // namespace tierpool::bindings
