#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <string>

#include "bindings.hpp"

namespace tierpool::bindings {

/// The position that a Python index means. Throws IndexError naming what the batch holds.
template <typename Batch>
[[nodiscard]] std::size_t checked_index(const Batch& batch, py::ssize_t index, const char* items) {
  const auto size = static_cast<py::ssize_t>(batch.size());
  if (index < -size || index >= size) {
    throw py::index_error("index " + std::to_string(index) + " is out of range for a batch of " + std::to_string(size) +
                          " " + items);
  }
  return static_cast<std::size_t>(index < 0 ? index + size : index);
}

/// The items of a slice.
template <typename Batch>
[[nodiscard]] py::list slice_of(Batch& batch, const py::slice& slice) {
  std::size_t start = 0;
  std::size_t stop = 0;
  std::size_t step = 0;
  std::size_t length = 0;
  if (!slice.compute(batch.size(), &start, &stop, &step, &length)) {
    throw py::error_already_set();
  }
  py::list items;
  for (std::size_t i = 0; i < length; ++i, start += step) {
    items.append(batch.item(start));
  }
  return items;
}

/// One number an item, as an array.
template <typename Integer, typename Items, typename Read>
[[nodiscard]] py::array_t<Integer> column(const Items& items, Read read) {
  py::array_t<Integer> values(static_cast<py::ssize_t>(items.size()));
  Integer* out = values.mutable_data();
  for (const auto& item : items) {
    *out++ = static_cast<Integer>(read(item));
  }
  return values;
}

/// Makes a batch of `items` a collections.abc.Sequence.
template <typename Batch>
void add_sequence(py::class_<Batch>& batch, const char* items) {
  batch.def("__len__", &Batch::size)
      .def("__getitem__",
           [items](Batch& self, py::ssize_t index) { return self.item(checked_index(self, index, items)); })
      .def("__getitem__", &slice_of<Batch>)
      .def("__iter__",
           [](const py::object& self) { return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr())); });
  const py::object sequence = py::module_::import("collections.abc").attr("Sequence");
  for (const char* inherited : {"__contains__", "__reversed__", "index", "count"}) {
    batch.attr(inherited) = sequence.attr(inherited);
  }
  sequence.attr("register")(batch);
}

}  // namespace tierpool::bindings
