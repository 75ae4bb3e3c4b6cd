#include "lease_type.hpp"

#include <structmember.h>

#include <array>
#include <cstddef>
#include <new>
#include <string>
#include <utility>

#include "guarded.hpp"
#include "lease_views.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "viewed_leases.hpp"

namespace tierpool::bindings {
namespace {

PyTypeObject* lease_type = nullptr;

// Memory of dead objects for the next ones. Guarded by the GIL; never freed, for leases die until the process ends.
constexpr std::size_t kMaxKept = 1024;
std::array<PyObject*, kMaxKept> kept;
std::size_t kept_count = 0;

LeaseObject& self_of(PyObject* self) noexcept { return *reinterpret_cast<LeaseObject*>(self); }

void let_go(LeaseObject& lease) noexcept {
  if (lease.shared != nullptr) {
    lease.shared.reset();
  } else {
    end_lease(*lease.pool, lease.lease);
  }
}

PyObject* take_memory() noexcept {
  return kept_count == 0 ? lease_type->tp_alloc(lease_type, 0) : PyObject_Init(kept[--kept_count], lease_type);
}

void dealloc(PyObject* self) {
  LeaseObject& lease = self_of(self);
  if (lease.weak_references != nullptr) {
    PyObject_ClearWeakRefs(self);
  }
  if (lease.views.address_is_out()) {
    lease.pool->remove_view(lease.lease);
  }
  unlist_viewed(lease);
  let_go(lease);
  lease.extents.~vector();
  lease.shared.~shared_ptr();
  lease.layout.~ArrayLayout();
  lease.pool.~shared_ptr();
  PyTypeObject* type = Py_TYPE(self);
  if (kept_count != kMaxKept) {
    kept[kept_count++] = self;
  } else {
    type->tp_free(self);
  }
  Py_DECREF(type);
}

PyObject* repr(PyObject* self) {
  return guarded([&]() -> py::object {
    const LeaseObject& lease = self_of(self);
    const std::uint64_t nbytes = lease.lease.requested_bytes;
    const std::string what =
        "<tierpool.Lease " + describe(lease.layout, nbytes) + ", " + std::to_string(nbytes) + " bytes";
    const LeaseState state = lease.pool->state_of(lease.lease);
    if (state == LeaseState::live && !lease.views.is_given_up()) {
      const auto address = py::reinterpret_steal<py::object>(PyNumber_ToBase(py::int_(lease.lease.address).ptr(), 16));
      return py::str(what + " at " + py::cast<std::string>(address) + ">");
    }
    return py::str(what + (state == LeaseState::reset ? ", over since a reset>" : ", released>"));
  });
}

PyObject* release(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> py::object {
    release_now(self_of(self), *self_of(self).pool);
    return py::none();
  });
}

PyObject* enter(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> py::object {
    check_live(self_of(self));
    return py::reinterpret_borrow<py::object>(self);
  });
}

PyObject* leave(PyObject* self, PyObject* /*exception*/) {
  give_up(self_of(self));
  Py_RETURN_NONE;
}

PyObject* refuse_copy(PyObject* self, PyObject* /*unused*/) {
  return PyErr_Format(PyExc_TypeError,
                      "a %s cannot be copied or pickled: it is valid in this process until the next reset; copy what "
                      "it holds, as lease.array().copy() does",
                      Py_TYPE(self)->tp_name);
}

PyObject* get_nbytes(PyObject* self, void* /*closure*/) {
  return PyLong_FromUnsignedLongLong(self_of(self).lease.requested_bytes);
}

PyObject* get_address(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    check_live(self_of(self));
    return py::int_(self_of(self).lease.address);
  });
}

PyObject* get_dtype(PyObject* self, void* /*closure*/) {
  return guarded([&] { return self_of(self).layout.item_type().dtype; });
}

PyObject* get_shape(PyObject* self, void* /*closure*/) {
  return guarded([&] { return shape_of(self_of(self).layout, self_of(self).lease.requested_bytes); });
}

PyObject* get_live(PyObject* self, void* /*closure*/) {
  const LeaseObject& lease = self_of(self);
  const bool is_live = !lease.views.is_given_up() && lease.pool->state_of(lease.lease) == LeaseState::live;
  return PyBool_FromLong(is_live ? 1 : 0);
}

PyCFunction with_keywords(PyCFunctionWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"array", with_keywords(view_as_array), METH_VARARGS | METH_KEYWORDS,
     "array($self, /, dtype=None, shape=None)\n--\n\n"
     "A NumPy array over the memory, without a copy.\n\n"
     "Parameters\n----------\n"
     "dtype : data type of the items, optional\n    By default the lease's.\n"
     "shape : int or tuple of int, optional\n"
     "    At most `nbytes` in all; by default the lease's or, with a dtype, one dimension over all of it.\n\n"
     "Raises\n------\n"
     "StaleBufferError\n    After the lease was released or its pool reset.\n"
     "ValueError\n    When dtype and shape do not fit the memory.\n"
     "TypeError\n    For a dtype that holds Python objects."},
    {"release", release, METH_NOARGS,
     "release($self, /)\n--\n\n"
     "End the lease now, before the reset that would end it.\n\n"
     "Raises\n------\n"
     "StaleBufferError\n    When it has ended already.\n"
     "BufferError\n    In checked mode, while an array, a memoryview or a DLPack export still sees the memory, or "
     "after\n"
     "    a read of `__array_interface__`."},
    {"__enter__", enter, METH_NOARGS, nullptr},
    {"__exit__", leave, METH_VARARGS,
     "Give the handle up; the lease ends with the last that sees its memory, or with a reset."},
    {"__reduce__", refuse_copy, METH_NOARGS, "Refuse: a lease cannot be copied or pickled."},
    {"__dlpack__", with_keywords(view_as_dlpack), METH_VARARGS | METH_KEYWORDS,
     "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "Export the memory as a DLPack tensor of the lease's dtype and shape."},
    {"__dlpack_device__", dlpack_device_of, METH_NOARGS, "The DLPack device: (1, 0), the processor."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"nbytes", get_nbytes, nullptr, "Requested size in bytes, never that of the size class.", nullptr},
    {"dtype", get_dtype, nullptr, "dtype that views show.", nullptr},
    {"shape", get_shape, nullptr, "Shape that views show.", nullptr},
    {"address", get_address, nullptr,
     "Address of the first byte. No count sees who uses it: it is good until the lease ends.", nullptr},
    {"live", get_live, nullptr, "Whether the lease has been neither released nor ended by a reset.", nullptr},
    {"__array_interface__", get_array_interface, nullptr, "NumPy's array interface, version 3.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LeaseObject, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_doc,
     const_cast<char*>("One handing-out of scratch memory by a buffer pool, valid until it is released, dropped or\n"
                       "the pool is reset.\n\n"
                       "Supports the buffer protocol, `numpy.asarray`, DLPack and `with`; all show `dtype` and\n"
                       "`shape`. A use after its end raises StaleBufferError. One handle is not to be used from\n"
                       "several threads at once; it may be dropped on any thread.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(repr)},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(release_buffer)},
    {0, nullptr},
};

PyType_Spec spec = {"tierpool._core.Lease", sizeof(LeaseObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE, slots};

}  // namespace

bool is_lease(py::handle object) noexcept { return Py_TYPE(object.ptr()) == lease_type; }

LeaseObject& lease_object(py::handle lease) noexcept { return self_of(lease.ptr()); }

void check_live(const LeaseObject& lease) {
  if (lease.views.is_given_up()) {  // which the pool learns of with the last view
    throw StaleBufferError("stale lease of " + std::to_string(lease.lease.requested_bytes) +
                           " bytes: it was released; allocate a new one");
  }
  lease.pool->require_live(lease.lease);
}

void give_up(LeaseObject& lease) noexcept {
  if (lease.views.give_up()) {
    let_go(lease);
  }
}

void check_releasable(const LeaseObject& lease) {
  const bool is_exported = lease.shared != nullptr && lease.shared.use_count() > 1;
  const bool is_viewed = lease.views.count() != 0 || lease.views.address_is_out() || is_exported;
  if (is_viewed && lease.pool->config().checked) {
    throw py::buffer_error("cannot release the lease of " + describe(lease.layout, lease.lease.requested_bytes) +
                           ": it has live views; drop them first, or drop the lease and let them keep the memory");
  }
}

void release_now(LeaseObject& lease, BufferPool& pool) {
  check_live(lease);
  if (&pool != lease.pool.get()) {
    pool.require_live(lease.lease);
  }
  check_releasable(lease);
  if (end_lease(pool, lease.lease) != ReleaseOutcome::released) {
    pool.require_live(lease.lease);
  }
  static_cast<void>(lease.views.give_up());
  lease.shared.reset();
}

void begin_view(LeaseObject& lease) {
  if (!lease.pool->source()->device().host_accessible()) {
    throw py::buffer_error("the processor cannot reach the memory of device '" + lease.pool->source()->device().name() +
                           "'; build the buffer pool on 'host' for that");
  }
  if (!lease.views.add()) {
    check_live(lease);
  }
  if (!lease.pool->add_view(lease.lease)) {
    static_cast<void>(lease.views.remove());
    check_live(lease);
  }
  list_viewed(lease);
}

void end_view(LeaseObject& lease) noexcept {
  lease.pool->remove_view(lease.lease);
  if (lease.views.remove()) {
    let_go(lease);
  }
}

PyObject* new_lease(const BufferPoolPointer& pool, const Lease& lease, ArrayLayout layout) noexcept {
  PyObject* self = take_memory();
  if (self == nullptr) {
    end_lease(*pool, lease);
    return nullptr;
  }
  LeaseObject& made = self_of(self);
  made.weak_references = nullptr;
  new (&made.pool) BufferPoolPointer(pool);
  made.lease = lease;
  new (&made.layout) ArrayLayout(std::move(layout));
  new (&made.views) BufferViews;
  new (&made.shared) std::shared_ptr<SharedLease>;
  new (&made.extents) std::vector<Py_ssize_t>;
  made.previous_viewed = nullptr;
  made.next_viewed = nullptr;
  return self;
}

void bind_lease(py::module_& module) {
  lease_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (lease_type == nullptr) {
    throw py::error_already_set();
  }
  module.add_object("Lease", reinterpret_cast<PyObject*>(lease_type));
  // The module's reference may go at exit while leases are still made and compared.
  Py_INCREF(lease_type);
}

}  // namespace tierpool::bindings
