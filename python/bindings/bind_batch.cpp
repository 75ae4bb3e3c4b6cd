#include <pybind11/numpy.h>

#include <string>
#include <utility>

#include "buffer_batch.hpp"

namespace tierpool::bindings {

BufferBatch::BufferBatch(std::vector<Buffer> memory) : memory_(std::move(memory)), items_(memory_.size()) {
  allocations_.reserve(memory_.size());
  for (const Buffer& buffer : memory_) {
    allocations_.push_back(buffer.allocation());
  }
}

py::object BufferBatch::item(std::size_t index) {
  check_not_released();
  if (!items_[index]) {
    items_[index] = make_buffer(std::move(memory_[index]));
  }
  return items_[index];
}

void BufferBatch::check_not_released() const {
  if (released_) {
    throw py::value_error("the batch of " + std::to_string(items_.size()) +
                          " buffers was released already; allocate a new one");
  }
}

void BufferBatch::release() {
  check_not_released();
  for (const py::object& item : items_) {
    if (item && !buffer_object(item).given_up) {
      check_releasable(buffer_object(item));
    }
  }
  released_ = true;
  for (const py::object& item : items_) {
    if (item) {
      give_up(buffer_object(item));
    }
  }
  memory_.clear();
  items_.assign(items_.size(), py::object());
}

namespace {

std::size_t checked_index(const BufferBatch& batch, py::ssize_t index) {
  const auto size = static_cast<py::ssize_t>(batch.size());
  if (index < -size || index >= size) {
    throw py::index_error("index " + std::to_string(index) + " is out of range for a batch of " + std::to_string(size) +
                          " buffers");
  }
  return static_cast<std::size_t>(index < 0 ? index + size : index);
}

py::list slice_of(BufferBatch& batch, const py::slice& slice) {
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

template <typename Integer, typename Read>
py::array_t<Integer> column(const BufferBatch& batch, Read read) {
  py::array_t<Integer> values(static_cast<py::ssize_t>(batch.size()));
  Integer* out = values.mutable_data();
  for (const Allocation& allocation : batch.allocations()) {
    *out++ = static_cast<Integer>(read(allocation));
  }
  return values;
}

}  // namespace

void bind_batch(py::module_& module) {
  py::class_<BufferBatch> batch(
      module, "BufferBatch",
      "Buffers that were allocated together. A sequence: an item becomes a `Buffer` when asked for.\n"
      "Memory of items never asked for goes back with the batch. Not to be used from several threads\n"
      "at once.");
  batch.def("__len__", &BufferBatch::size)
      .def("__getitem__", [](BufferBatch& self, py::ssize_t index) { return self.item(checked_index(self, index)); })
      .def("__getitem__", &slice_of)
      .def("__iter__",
           [](const py::object& self) { return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr())); })
      .def_property_readonly(
          "addresses",
          [](const BufferBatch& self) {
            self.check_not_released();
            return column<std::uint64_t>(self, [](const Allocation& allocation) { return allocation.address; });
          },
          "Addresses as a uint64 array. No count sees who uses them: keep the batch alive as long.")
      .def_property_readonly(
          "nbytes",
          [](const BufferBatch& self) {
            return column<std::int64_t>(self, [](const Allocation& allocation) { return allocation.requested_bytes; });
          },
          "Requested sizes as an int64 array.")
      .def("release", &BufferBatch::release,
           "Give all memory back now.\n\n"
           "Raises\n------\n"
           "ValueError\n    When the batch was released already.\n"
           "BufferError\n    While a view of any item is alive; nothing is released then.")
      .def("__repr__", [](const BufferBatch& self) {
        return "<tierpool.BufferBatch of " + std::to_string(self.size()) + " buffers" +
               (self.released() ? ", released>" : ">");
      });
  const py::object sequence = py::module_::import("collections.abc").attr("Sequence");
  for (const char* inherited : {"__contains__", "__reversed__", "index", "count"}) {
    batch.attr(inherited) = sequence.attr(inherited);
  }
  sequence.attr("register")(batch);
}

}  // namespace tierpool::bindings
