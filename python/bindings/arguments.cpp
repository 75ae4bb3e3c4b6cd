#include "arguments.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>

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
  std::vector<std::uint64_t> sizes(first, first + values.size());
  std::uint64_t all_bits = 0;
  for (const std::uint64_t size : sizes) {
    all_bits |= size;
  }
  if (all_bits > kMaxBytes) {  // the top bit: a negative value or one too large
    const auto bad = std::find_if(sizes.begin(), sizes.end(), [](std::uint64_t size) { return size > kMaxBytes; });
    const std::string text = std::to_string(static_cast<Integer>(*bad));
    std::is_signed_v<Integer> ? refuse_negative("size", text) : refuse_overflow("size", text);
  }
  return sizes;
}

std::size_t place_of(const char* function, std::span<const char* const> parameters, PyObject* name) {
  for (std::size_t place = 0; place < parameters.size(); ++place) {
    if (PyUnicode_CompareWithASCIIString(name, parameters[place]) == 0) {
      return place;
    }
  }
  throw py::type_error(std::string(function) + "() got an unexpected keyword argument '" + py::cast<std::string>(name) +
                       "'");
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

void bind_arguments(const char* function, std::span<const char* const> parameters, const CallArguments& given,
                    std::size_t required_count, std::span<PyObject*> places) {
  const auto positional = static_cast<std::size_t>(given.positional_count);
  if (positional > parameters.size()) {
    throw py::type_error(std::string(function) + "() takes at most " + std::to_string(parameters.size()) +
                         (parameters.size() == 1 ? " argument" : " arguments") + " (" + std::to_string(positional) +
                         " given)");
  }
  std::copy_n(given.values, positional, places.begin());
  const Py_ssize_t named = given.names == nullptr ? 0 : PyTuple_GET_SIZE(given.names);
  for (Py_ssize_t index = 0; index < named; ++index) {
    const std::size_t place = place_of(function, parameters, PyTuple_GET_ITEM(given.names, index));
    if (places[place] != nullptr) {
      throw py::type_error(std::string(function) + "() got multiple values for argument '" + parameters[place] + "'");
    }
    places[place] = given.values[given.positional_count + index];
  }
  for (std::size_t place = 0; place < required_count; ++place) {
    if (places[place] == nullptr) {
      throw py::type_error(std::string(function) + "() missing required argument '" + parameters[place] + "'");
    }
  }
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
