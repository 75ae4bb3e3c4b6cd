#include <pybind11/numpy.h>

#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "buffer_batch.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "held_value.hpp"

namespace tierpool::bindings {
namespace {

// The storage of a dead batch, for the next one: malloc would give its pages back and fault them in again. Taken and
// put by exchange, so that it needs no GIL.
std::atomic<std::vector<Allocation>*> spare_storage{nullptr};
constexpr std::size_t kMostSpareItems = 16'384;

std::vector<Allocation> take_storage() {
  const std::unique_ptr<std::vector<Allocation>> spare(spare_storage.exchange(nullptr));
  return spare == nullptr ? std::vector<Allocation>() : std::move(*spare);
}

void keep_storage(std::vector<Allocation>&& storage) noexcept {
  if (storage.capacity() == 0 || storage.capacity() > kMostSpareItems) {
    return;
  }
  storage.clear();
  auto* kept = new (std::nothrow) std::vector<Allocation>(std::move(storage));
  const std::unique_ptr<std::vector<Allocation>> former(spare_storage.exchange(kept));
}

}  // namespace

BufferBatch::BufferBatch(MemoryPool& pool) : pool_(&pool), allocations_(take_storage()) {}

BufferBatch::~BufferBatch() {
  if (!released_) {
    release_unmade();
  }
  keep_storage(std::move(allocations_));
}

void BufferBatch::release_unmade() noexcept {
  std::optional<WithoutGilIfHeld> without_gil;
  if (pool_->is_closed()) {  // its heaps go with the last allocation, which waits for the device
    without_gil.emplace();
  }
  if (items_.empty()) {
    pool_->release_batch(allocations_);
    return;
  }
  for (std::size_t index = 0; index < allocations_.size(); ++index) {
    if (!items_[index]) {
      static_cast<void>(pool_->release(allocations_[index]));
    }
  }
}

py::object BufferBatch::item(std::size_t index) {
  check_not_released();
  if (items_.empty()) {
    items_.resize(allocations_.size());
  }
  py::object& item = items_[index];
  if (!item) {
    item = py::reinterpret_steal<py::object>(new_buffer(*pool_, allocations_[index]));
    if (!item) {
      throw py::error_already_set();
    }
  }
  return item;
}

void BufferBatch::check_not_released() const {
  if (released_) {
    throw py::value_error("the batch of " + std::to_string(size()) +
                          " buffers was released already; allocate a new one");
  }
}

void BufferBatch::release() {
  check_not_released();
  for (const py::object& item : items_) {
    if (item && !buffer_object(item).views.is_given_up()) {
      check_releasable(buffer_object(item));
    }
  }
  released_ = true;
  for (const py::object& item : items_) {
    if (item) {
      give_up(buffer_object(item));
    }
  }
  release_unmade();
  items_.clear();
}

namespace {

BufferBatch* batch_of(PyObject* self) noexcept {
  auto* batch = held_value<BufferBatch>(self).value_ptr<BufferBatch>();
  if (batch == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "this batch holds nothing: MemoryPool.allocate_batch() makes batches");
  }
  return batch;
}

Py_ssize_t length(PyObject* self) {
  const BufferBatch* batch = batch_of(self);
  return batch == nullptr ? -1 : static_cast<Py_ssize_t>(batch->size());
}

// No C++ exception for the index behind the last: every loop over a batch ends with that.
PyObject* item_at(PyObject* self, Py_ssize_t index) {
  BufferBatch* batch = batch_of(self);
  if (batch == nullptr) {
    return nullptr;
  }
  if (index < 0 || index >= static_cast<Py_ssize_t>(batch->size())) {
    PyErr_Format(PyExc_IndexError, "index %zd is out of range for a batch of %zu buffers", index, batch->size());
    return nullptr;
  }
  return guarded([&] { return batch->item(static_cast<std::size_t>(index)); });
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

PyObject* subscript(PyObject* self, PyObject* key) {
  BufferBatch* batch = batch_of(self);
  if (batch == nullptr) {
    return nullptr;
  }
  if (PySlice_Check(key)) {
    return guarded([&]() -> py::object { return slice_of(*batch, py::reinterpret_borrow<py::slice>(key)); });
  }
  if (!PyIndex_Check(key)) {
    return PyErr_Format(PyExc_TypeError, "batch indices must be integers or slices, not %.200s", Py_TYPE(key)->tp_name);
  }
  const Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
  if (index == -1 && PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  const auto size = static_cast<Py_ssize_t>(batch->size());
  if (index >= -size && index < 0) {
    return item_at(self, index + size);
  }
  return item_at(self, index);
}

// As slots of the type: a loop then makes each item without pybind11's dispatch.
void set_sequence_slots(PyHeapTypeObject* type) {
  type->as_sequence.sq_length = length;
  type->as_sequence.sq_item = item_at;
  type->as_mapping.mp_length = length;
  type->as_mapping.mp_subscript = subscript;
  type->ht_type.tp_iter = PySeqIter_New;
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
      module, "BufferBatch", py::custom_type_setup(set_sequence_slots),
      "Buffers that were allocated together. A sequence: an item becomes a `Buffer` when asked for.\n"
      "Memory of items never asked for goes back with the batch. Not to be used from several threads\n"
      "at once.");
  batch
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
      .def("__reduce__",
           [](const BufferBatch&) {
             throw py::type_error(
                 "cannot pickle 'tierpool.BufferBatch' nor copy it: it holds memory of its pool; allocate another and "
                 "copy the bytes");
           })
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
