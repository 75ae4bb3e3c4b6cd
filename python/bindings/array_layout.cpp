#include "array_layout.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace tierpool::bindings {
namespace {

constexpr Py_ssize_t kMaxAxes = 32;  // what every NumPy and memoryview take
constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();

std::string text_of(py::handle object) { return py::cast<std::string>(py::repr(object)); }

/// Null, with no error set, for what is no integer.
py::object as_length(py::handle value) {
  auto length = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!length) {
    PyErr_Clear();
  }
  return length;
}

py::tuple as_tuple(py::handle shape) {
  if (const py::object length = as_length(shape)) {
    return py::make_tuple(length);
  }
  auto lengths = py::reinterpret_steal<py::list>(PySequence_List(shape.ptr()));
  if (!lengths) {
    PyErr_Clear();
  }
  bool is_shape = static_cast<bool>(lengths);
  for (std::size_t axis = 0; is_shape && axis < lengths.size(); ++axis) {
    const py::object length = as_length(lengths[axis]);
    is_shape = static_cast<bool>(length);
    lengths[axis] = is_shape ? length : py::none();
  }
  if (!is_shape) {
    throw py::type_error("shape must be an integer or a sequence of integers, got " + text_of(shape));
  }
  return py::tuple(lengths);
}

bool is_plain(PyObject* shape) {
  if (PyTuple_CheckExact(shape) == 0) {
    return false;
  }
  for (Py_ssize_t axis = 0; axis < PyTuple_GET_SIZE(shape); ++axis) {
    if (PyLong_CheckExact(PyTuple_GET_ITEM(shape, axis)) == 0) {
      return false;
    }
  }
  return true;
}

[[noreturn]] void refuse_shape(py::handle shape, const std::string& problem) {
  throw py::value_error("shape " + text_of(shape) + " " + problem);
}

/// Bytes of an array of that shape. Axes of length 0 do not hide that the others are too long.
std::int64_t bytes_of(py::handle shape, const ItemType& type) {
  if (PyTuple_GET_SIZE(shape.ptr()) > kMaxAxes) {
    refuse_shape(shape, "has more than " + std::to_string(kMaxAxes) + " axes");
  }
  std::int64_t bytes = type.item_bytes;
  bool is_empty = false;
  for (Py_ssize_t axis = 0; axis < PyTuple_GET_SIZE(shape.ptr()); ++axis) {
    int overflow = 0;
    const long long length = PyLong_AsLongLongAndOverflow(PyTuple_GET_ITEM(shape.ptr(), axis), &overflow);
    if (overflow < 0 || (overflow == 0 && length < 0)) {
      refuse_shape(shape, "must not be negative");
    }
    if (overflow > 0 || (length > 1 && bytes > kMaxBytes / length)) {
      refuse_shape(shape, "of " + type.name + " needs 2**63 bytes or more");
    }
    is_empty = is_empty || length == 0;
    bytes *= std::max(length, 1LL);
  }
  return is_empty ? 0 : bytes;
}

}  // namespace

ArrayLayout parse_layout(std::uint64_t nbytes, PyObject* dtype, PyObject* shape) {
  ArrayLayout layout;
  if (dtype != nullptr && dtype != Py_None) {
    layout.items = find_item_type(dtype);
  }
  if (shape != nullptr && shape != Py_None) {
    layout.shape = is_plain(shape) ? py::reinterpret_borrow<py::object>(shape) : as_tuple(shape);
    const ItemType& type = layout.item_type();
    const auto needed = static_cast<std::uint64_t>(bytes_of(layout.shape, type));
    if (needed != nbytes) {
      refuse_shape(layout.shape, "of " + type.name + " needs " + std::to_string(needed) + " bytes, but nbytes is " +
                                     std::to_string(nbytes) + "; ask for " + std::to_string(needed));
    }
  } else if (layout.items != nullptr && nbytes % static_cast<std::uint64_t>(layout.items->item_bytes) != 0) {
    throw py::value_error("nbytes is " + std::to_string(nbytes) + ", which is no whole number of " +
                          layout.items->name + " items of " + std::to_string(layout.items->item_bytes) + " bytes");
  }
  return layout;
}

std::vector<std::int64_t> extents_of(const ArrayLayout& layout, std::uint64_t nbytes) {
  if (!layout.shape) {
    const Py_ssize_t item_bytes = layout.items == nullptr ? 1 : layout.items->item_bytes;
    return {static_cast<std::int64_t>(nbytes) / item_bytes};
  }
  std::vector<std::int64_t> extents;
  for (const py::handle length : py::reinterpret_borrow<py::tuple>(layout.shape)) {
    extents.push_back(PyLong_AsLongLong(length.ptr()));
  }
  return extents;
}

py::object shape_of(const ArrayLayout& layout, std::uint64_t nbytes) {
  return layout.shape ? layout.shape : py::make_tuple(extents_of(layout, nbytes).front());
}

std::string describe(const ArrayLayout& layout, std::uint64_t nbytes) {
  return (layout.items == nullptr ? "uint8" : layout.items->name) + " " + text_of(shape_of(layout, nbytes));
}

}  // namespace tierpool::bindings
