#include "lease_views.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dlpack_capsule.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "lease_type.hpp"
#include "tierpool/base/address.hpp"

namespace tierpool::bindings {
namespace {

/// A view that ends with this object, unless somebody else takes it over.
class LeaseView {
 public:
  explicit LeaseView(LeaseObject& lease) : lease_(&lease) { begin_view(lease); }
  ~LeaseView() {
    if (lease_ != nullptr) {
      end_view(*lease_);
    }
  }
  LeaseView(const LeaseView&) = delete;
  LeaseView& operator=(const LeaseView&) = delete;

  void hand_over() noexcept { lease_ = nullptr; }

 private:
  LeaseObject* lease_;
};

std::size_t axis_count(const LeaseObject& lease) { return lease.extents.size() / 2; }

/// Shape and strides in bytes; kept by the object, because views refer to them.
void make_extents(LeaseObject& lease) {
  if (!lease.extents.empty()) {
    return;
  }
  const std::vector<std::int64_t> shape = extents_of(lease.layout, lease.lease.requested_bytes);
  std::vector<Py_ssize_t> extents(shape.begin(), shape.end());
  extents.resize(2 * shape.size());
  Py_ssize_t stride = lease.layout.items == nullptr ? 1 : lease.layout.items->item_bytes;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    extents[shape.size() + axis] = stride;
    stride *= std::max<Py_ssize_t>(extents[axis], 1);
  }
  lease.extents = std::move(extents);
}

bool is_fortran_contiguous(const LeaseObject& lease) {
  const auto end = lease.extents.begin() + static_cast<std::ptrdiff_t>(axis_count(lease));
  return std::count_if(lease.extents.begin(), end, [](Py_ssize_t length) { return length > 1; }) <= 1;
}

bool asks(int flags, int request) { return (flags & request) == request; }

void fill(Py_buffer& view, LeaseObject& lease, int flags) {
  const ArrayLayout& layout = lease.layout;
  static char bytes_format[] = "B";
  view.buf = pointer_at(lease.lease.address);
  view.len = static_cast<Py_ssize_t>(lease.lease.requested_bytes);
  view.readonly = 0;
  view.itemsize = layout.items == nullptr ? 1 : layout.items->item_bytes;
  view.format = nullptr;
  if (asks(flags, PyBUF_FORMAT)) {
    view.format = layout.items == nullptr ? bytes_format : const_cast<char*>(layout.items->format.c_str());
  }
  const bool has_shape = asks(flags, PyBUF_ND);
  view.ndim = has_shape ? static_cast<int>(axis_count(lease)) : 1;
  view.shape = has_shape ? lease.extents.data() : nullptr;
  view.strides = asks(flags, PyBUF_STRIDES) ? lease.extents.data() + axis_count(lease) : nullptr;
  view.suboffsets = nullptr;
  view.internal = nullptr;
}

// A capsule is the base of an array: it keeps the lease and counts as a view until the array dies.
void end_array(PyObject* capsule) {
  auto* lease = static_cast<LeaseObject*>(PyCapsule_GetPointer(capsule, nullptr));
  end_view(*lease);
  Py_DECREF(reinterpret_cast<PyObject*>(lease));
}

py::object make_base(LeaseObject& lease) {
  LeaseView view(lease);
  auto base = py::reinterpret_steal<py::object>(PyCapsule_New(&lease, nullptr, end_array));
  if (!base) {
    throw py::error_already_set();
  }
  Py_INCREF(reinterpret_cast<PyObject*>(&lease));
  view.hand_over();
  return base;
}

py::array array_of(LeaseObject& lease, const ItemType& type, const std::vector<std::int64_t>& shape) {
  const py::object base = make_base(lease);
  return {py::reinterpret_borrow<py::dtype>(type.dtype), shape, {}, pointer_at(lease.lease.address), base};
}

py::object array_as(LeaseObject& lease, py::object dtype, const py::object& shape) {
  if (dtype.is_none()) {
    dtype = lease.layout.item_type().dtype;
  }
  const py::array bytes = array_of(lease, *byte_type(), {static_cast<std::int64_t>(lease.lease.requested_bytes)});
  const py::object over = py::module_::import("tierpool.integrations.numpy").attr("array_over");
  auto made = py::reinterpret_steal<py::object>(call_python(over, py::make_tuple(bytes, dtype, shape)));
  if (!made) {
    throw py::error_already_set();
  }
  return made;
}

/// A DLPack export: one more view, and a share in the lease.
class ExportedView {
 public:
  explicit ExportedView(std::shared_ptr<SharedLease> shared) noexcept : shared_(std::move(shared)) {}
  ~ExportedView() { shared_->pool().remove_view(shared_->lease()); }
  ExportedView(const ExportedView&) = delete;
  ExportedView& operator=(const ExportedView&) = delete;

 private:
  const std::shared_ptr<SharedLease> shared_;
};

std::shared_ptr<void> share_of(LeaseObject& lease) {
  const LeaseView checked(lease);  // also the view that is there while the export's own is made
  if (lease.shared == nullptr) {
    lease.shared = std::make_shared<SharedLease>(lease.pool, lease.lease);
  }
  auto exported = std::make_shared<ExportedView>(lease.shared);
  static_cast<void>(lease.pool->add_view(lease.lease));
  return exported;
}

}  // namespace

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  LeaseObject& lease = lease_object(self);
  view->obj = nullptr;
  const auto ready = py::reinterpret_steal<py::object>(guarded([&]() -> py::object {
    if (asks(flags, PyBUF_FORMAT) && lease.layout.items != nullptr && lease.layout.items->format.empty()) {
      throw py::buffer_error("the buffer protocol has no format for dtype " + lease.layout.items->name +
                             "; use array()");
    }
    make_extents(lease);
    if (asks(flags, PyBUF_F_CONTIGUOUS) && !is_fortran_contiguous(lease)) {
      throw py::buffer_error("the lease of " + describe(lease.layout, lease.lease.requested_bytes) +
                             " is in C order, not in Fortran's");
    }
    begin_view(lease);
    return py::none();
  }));
  if (!ready) {
    return -1;
  }
  fill(*view, lease, flags);
  Py_INCREF(self);
  view->obj = self;
  return 0;
}

void release_buffer(PyObject* self, Py_buffer* /*view*/) { end_view(lease_object(self)); }

PyObject* view_as_array(PyObject* self, PyObject* arguments, PyObject* keywords) {
  static const char* names[] = {"dtype", "shape", nullptr};
  PyObject* dtype = Py_None;
  PyObject* shape = Py_None;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "|OO:array", const_cast<char**>(names), &dtype, &shape) == 0) {
    return nullptr;
  }
  return guarded([&]() -> py::object {
    LeaseObject& lease = lease_object(self);
    if (dtype == Py_None && shape == Py_None) {
      return array_of(lease, lease.layout.item_type(), extents_of(lease.layout, lease.lease.requested_bytes));
    }
    return array_as(lease, py::reinterpret_borrow<py::object>(dtype), py::reinterpret_borrow<py::object>(shape));
  });
}

PyObject* get_array_interface(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    LeaseObject& lease = lease_object(self);
    const py::object dtype = lease.layout.item_type().dtype;
    py::dict interface;
    interface["shape"] = shape_of(lease.layout, lease.lease.requested_bytes);
    interface["typestr"] = dtype.attr("str");
    interface["descr"] = dtype.attr("descr");
    interface["data"] = py::make_tuple(lease.lease.address, false);
    interface["strides"] = py::none();
    interface["version"] = 3;
    LeaseView view(lease);
    if (!lease.views.address_is_out()) {
      // Nobody tells when the address is no longer used: the pool counts a view until the object dies.
      static_cast<void>(lease.pool->add_view(lease.lease));
      lease.views.hand_out_address();
    }
    return interface;
  });
}

PyObject* view_as_dlpack(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&]() -> py::object {
    LeaseObject& lease = lease_object(self);
    const DlpackRequest request = check_dlpack_arguments(parse_dlpack_arguments(arguments, keywords), DlpackPlace{});
    const ItemType& type = lease.layout.item_type();
    if (type.dlpack.bits == 0) {
      throw py::buffer_error("DLPack has no name for dtype " + type.name + "; export lease.array('uint8') instead");
    }
    const std::uint64_t nbytes = lease.lease.requested_bytes;
    const DlpackTensor shown{
        .address = lease.lease.address, .place = {}, .type = type.dlpack, .shape = extents_of(lease.layout, nbytes)};
    return make_dlpack_capsule(request.versioned, shown, share_of(lease));
  });
}

PyObject* dlpack_device_of(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> py::object {
    const LeaseView checked(lease_object(self));
    return DlpackPlace{}.as_tuple();
  });
}

}  // namespace tierpool::bindings
