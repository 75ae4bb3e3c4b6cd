#include "arguments.hpp"

#include <pybind11/numpy.h>

#include <limits>
#include <string>

namespace tierpool::bindings {
namespace {

constexpr auto kMaxBytes = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

[[noreturn]] void refuse_negative(const std::string& name, const std::string& value) {
  throw py::value_error(name + " must not be negative, got " + value);
}

[[noreturn]] void refuse_overflow(const std::string& name, const std::string& value) {
  PyErr_SetString(PyExc_OverflowError, (name + " must be below 2**63 bytes, got " + value).c_str());
  throw py::error_already_set();
}

// Python refuses to print integers of thousands of digits.
std::string text_of(const py::object& integer) {
  const auto bits = py::cast<std::size_t>(integer.attr("bit_length")());
  return bits <= 1024 ? py::cast<std::string>(py::str(integer)) : "an integer of " + std::to_string(bits) + " bits";
}

// Without NumPy in the process there are no arrays, and asking pybind11 would import it.
bool is_array(py::handle object) {
  return PyDict_GetItemString(PyImport_GetModuleDict(), "numpy") != nullptr && py::isinstance<py::array>(object);
}

template <typename Integer>
std::vector<std::uint64_t> sizes_of(const py::array& array) {
  const auto values = py::cast<py::array_t<Integer, py::array::c_style>>(array);
  const Integer* first = values.data();
  std::vector<std::uint64_t> sizes(static_cast<std::size_t>(values.size()));
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (first[i] < 0) {
      refuse_negative("size", std::to_string(first[i]));
    }
    sizes[i] = static_cast<std::uint64_t>(first[i]);
    if (sizes[i] > kMaxBytes) {
      refuse_overflow("size", std::to_string(first[i]));
    }
  }
  return sizes;
}

}  // namespace

std::uint64_t parse_bytes(py::handle value, const char* name) {
  if (!PyIndex_Check(value.ptr())) {
    throw py::type_error(std::string(name) + " must be an integer number of bytes, got " +
                         Py_TYPE(value.ptr())->tp_name);
  }
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!integer) {
    throw py::error_already_set();
  }
  int overflow = 0;
  const long long bytes = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
  if (overflow > 0) {
    refuse_overflow(name, text_of(integer));
  }
  if (overflow < 0 || bytes < 0) {
    refuse_negative(name, text_of(integer));
  }
  return static_cast<std::uint64_t>(bytes);
}

std::vector<std::uint64_t> parse_sizes(py::handle sizes) {
  if (is_array(sizes)) {
    const auto array = py::reinterpret_borrow<py::array>(sizes);
    if (array.ndim() != 1) {
      throw py::value_error("sizes must have one dimension, got " + std::to_string(array.ndim()) +
                            "; pass sizes.ravel()");
    }
    switch (array.dtype().kind()) {
      case 'i':
        return sizes_of<std::int64_t>(array);
      case 'u':
        return sizes_of<std::uint64_t>(array);
      default:
        throw py::type_error("sizes must be an array of integers, got dtype " +
                             py::cast<std::string>(py::str(array.dtype())));
    }
  }
  std::vector<std::uint64_t> parsed;
  for (const py::handle size : py::iter(sizes)) {
    parsed.push_back(parse_bytes(size, "size"));
  }
  return parsed;
}

}  // namespace tierpool::bindings
