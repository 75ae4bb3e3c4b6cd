#include <array>
#include <cstddef>

#include "bindings.hpp"
#include "buffer_freelist.hpp"

namespace tierpool::bindings {
namespace {

constexpr std::size_t kMaxKept = 1024;

struct ThreadList {
  std::size_t count = 0;
  std::size_t limit = 0;  // kMaxKept once the thread's end is sure to be seen
  bool ended = false;
  std::array<void*, kMaxKept> kept{};
};

thread_local ThreadList list;

// At exit the main thread ends the others' states: what their lists keep then goes with the process.
void free_kept(PyObject* capsule) {
  if (PyCapsule_GetPointer(capsule, nullptr) != &list) {
    return;
  }
  list.ended = true;
  list.limit = 0;
  while (list.count != 0) {
    PyObject_Free(list.kept[--list.count]);
  }
}

// Python's memory must be freed while the thread still has its state, for which a C++ destructor runs too late: the
// capsule dies with the state's own dictionary.
bool watch_thread_end() noexcept {
  const py::error_scope keep_pending_error;
  PyObject* dictionary = PyThreadState_GetDict();
  PyObject* capsule = dictionary == nullptr ? nullptr : PyCapsule_New(&list, nullptr, free_kept);
  const bool watched = capsule != nullptr && PyDict_SetItemString(dictionary, "tierpool.buffer_freelist", capsule) == 0;
  Py_XDECREF(capsule);
  return watched;
}

}  // namespace

void* take_recycled() noexcept { return list.count == 0 ? nullptr : list.kept[--list.count]; }

bool recycle(void* memory) noexcept {
  if (list.count == list.limit) {
    if (list.limit != 0 || list.ended || !watch_thread_end()) {
      return false;
    }
    list.limit = kMaxKept;
  }
  list.kept[list.count++] = memory;
  return true;
}

}  // namespace tierpool::bindings
