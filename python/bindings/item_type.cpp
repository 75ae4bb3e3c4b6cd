#include "item_type.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace tierpool::bindings {
namespace {

// The same few dtypes come again and again, mostly as the same object: a short list is faster than a table.
constexpr std::size_t kKept = 16;

struct Kept {
  py::object argument;
  ItemTypePointer type;
};

struct KeptTypes {
  std::array<Kept, kKept> entries;
  std::size_t next = 0;
};

// Leaked on purpose: leases may be made until the interpreter ends.
KeptTypes& kept_types() {
  static auto* instance = new KeptTypes;
  return *instance;
}

DlpackType dlpack_type_of(const py::object& dtype, const std::string& name, Py_ssize_t item_bytes) {
  const auto bits = static_cast<std::uint8_t>(item_bytes * 8);
  if (item_bytes > 16 || !py::cast<bool>(dtype.attr("isnative"))) {
    return {};
  }
  if (name == "bfloat16") {
    return {4, bits};
  }
  switch (py::cast<std::string>(dtype.attr("kind")).front()) {
    case 'i':
      return {0, bits};
    case 'u':
      return {1, bits};
    case 'f':
      return {2, bits};
    case 'c':
      return {5, bits};
    case 'b':
      return {6, bits};
    default:
      return {};
  }
}

std::string format_of(const py::module_& numpy, const py::object& dtype) {
  const py::object array = numpy.attr("empty")(0, dtype);
  const auto view = py::reinterpret_steal<py::object>(PyMemoryView_FromObject(array.ptr()));
  if (!view) {
    PyErr_Clear();  // the buffer protocol has no word for this dtype
    return {};
  }
  return py::cast<std::string>(view.attr("format"));
}

ItemTypePointer make_item_type(py::handle given) {
  const py::module_ numpy = py::module_::import("numpy");
  const py::object dtype = numpy.attr("dtype")(given);
  ItemType type;
  type.dtype = dtype;
  type.name = py::cast<std::string>(py::str(dtype));
  type.item_bytes = py::cast<Py_ssize_t>(dtype.attr("itemsize"));
  if (py::cast<bool>(dtype.attr("hasobject"))) {
    throw py::type_error("dtype " + type.name +
                         " holds Python objects, which memory without an owner must not; use a plain dtype");
  }
  if (type.item_bytes == 0) {
    throw py::value_error("dtype " + type.name + " has no size; give its length, as in 'S8'");
  }
  if (!dtype.attr("subdtype").is_none()) {
    throw py::value_error("dtype " + type.name + " has a shape of its own; use its base and give the shape");
  }
  type.format = format_of(numpy, dtype);
  type.dlpack = dlpack_type_of(dtype, type.name, type.item_bytes);
  return std::make_shared<const ItemType>(std::move(type));
}

// A class written in Python may carry a dtype that changes; what is built in cannot.
bool is_constant(PyObject* dtype) {
  const bool is_built_in_type =
      PyType_Check(dtype) && (reinterpret_cast<PyTypeObject*>(dtype)->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0;
  return is_built_in_type || PyUnicode_CheckExact(dtype) || dtype == Py_None;
}

}  // namespace

ItemTypePointer find_item_type(PyObject* dtype) {
  KeptTypes& kept = kept_types();
  const auto same = [dtype](const Kept& one) { return one.argument.ptr() == dtype; };
  if (const auto found = std::find_if(kept.entries.begin(), kept.entries.end(), same); found != kept.entries.end()) {
    return found->type;
  }
  ItemTypePointer made = dtype == Py_None ? byte_type() : make_item_type(dtype);
  const bool may_keep = is_constant(dtype) || dtype == made->dtype.ptr();
  Kept& entry = kept.entries[kept.next++ % kKept];
  // What gives way dies last: its death may run foreign code, and that look for a type here.
  const Kept given_way =
      std::exchange(entry, Kept{may_keep ? py::reinterpret_borrow<py::object>(dtype) : made->dtype, made});
  return made;
}

const ItemTypePointer& byte_type() {
  // No initialiser that other threads would wait for: importing NumPy may let the GIL go.
  static ItemTypePointer* instance = nullptr;
  if (instance == nullptr) {
    ItemTypePointer made = make_item_type(py::str("uint8"));
    if (instance == nullptr) {
      instance = new ItemTypePointer(std::move(made));
    }
  }
  return *instance;
}

}  // namespace tierpool::bindings
