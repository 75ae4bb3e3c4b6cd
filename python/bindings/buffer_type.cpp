#include "buffer_type.hpp"

#include <structmember.h>

#include <array>
#include <new>
#include <string>

#include "arguments.hpp"
#include "buffer_copy.hpp"
#include "buffer_freelist.hpp"
#include "buffer_interfaces.hpp"
#include "dlpack_export.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "memory_end.hpp"
#include "stream_argument.hpp"
#include "tierpool/base/address.hpp"

namespace tierpool::bindings {
namespace {

PyTypeObject* buffer_type = nullptr;

BufferObject& self_of(PyObject* self) noexcept { return *reinterpret_cast<BufferObject*>(self); }

void let_go(BufferObject& buffer) noexcept {
  Buffer memory = std::move(buffer.memory);  // other threads may run meanwhile
  buffer.memory = Buffer();                  // lets go of the pool, which a kept handle must not hold
  give_back(memory);
  if (buffer.shared != nullptr) {
    std::exchange(buffer.shared, nullptr)->remove_owner();
  }
}

/// Fills an object's fields, whatever its memory held before.
void place(PyObject* self, Buffer&& memory, const Allocation& allocation) noexcept {
  BufferObject& buffer = self_of(self);
  buffer.weak_references = nullptr;
  buffer.shared = nullptr;
  new (&buffer.views) BufferViews;
  buffer.address = allocation.address;
  buffer.nbytes = allocation.requested_bytes;
  buffer.heap_index = allocation.heap_index;
  new (&buffer.memory) Buffer(std::move(memory));
}

void dealloc(PyObject* self) {
  BufferObject& buffer = self_of(self);
  if (buffer.weak_references != nullptr) [[unlikely]] {
    PyObject_ClearWeakRefs(self);
  }
  if (buffer.shared != nullptr) [[unlikely]] {
    buffer.shared->remove_owner();
  }
  give_back(buffer.memory);
  buffer.memory.~Buffer();
  PyTypeObject* type = Py_TYPE(self);
  if (type != buffer_type || !recycle(self)) [[unlikely]] {
    type->tp_free(self);
  }
  Py_DECREF(type);
}

// `Buffer(buffer)`: a subclass's way to an instance. What an overridden __init__ takes besides is its own.
PyObject* take_over(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  return guarded([&]() -> py::object {
    const Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    const bool has_own_init = type->tp_init != PyBaseObject_Type.tp_init;
    const bool has_more = count > 1 || (keywords != nullptr && PyDict_GET_SIZE(keywords) != 0);
    if (count == 0 || (has_more && !has_own_init) || !is_buffer(PyTuple_GET_ITEM(arguments, 0))) {
      throw py::type_error(std::string(type->tp_name) +
                           "() takes one tierpool.Buffer, whose memory it takes over: allocate that one with "
                           "pool.allocate(size)");
    }
    BufferObject& source = buffer_object(PyTuple_GET_ITEM(arguments, 0));
    auto made = py::reinterpret_steal<py::object>(type->tp_alloc(type, 0));
    if (!made) {
      throw py::error_already_set();
    }
    place(made.ptr(), Buffer(), Allocation());
    check_releasable(source);  // only now: making an object may run the collector, and finalizers release buffers
    static_cast<void>(source.views.give_up());
    const Allocation allocation = memory_of(source).allocation();
    place(made.ptr(), std::move(source.memory), allocation);
    self_of(made.ptr()).shared = std::exchange(source.shared, nullptr);
    return made;
  });
}

PyObject* repr(PyObject* self) {
  const BufferObject& buffer = self_of(self);
  if (buffer.views.is_given_up()) {
    return PyUnicode_FromFormat("<tierpool.Buffer released, %llu bytes>",
                                static_cast<unsigned long long>(buffer.nbytes));
  }
  const std::string place = buffer.heap_index == kNoHeap ? "fallback" : "heap " + std::to_string(buffer.heap_index);
  return PyUnicode_FromFormat("<tierpool.Buffer %llu bytes at %p, %s>", static_cast<unsigned long long>(buffer.nbytes),
                              pointer_at(buffer.address), place.c_str());
}

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  BufferObject& buffer = self_of(self);
  view->obj = nullptr;
  const bool is_view = begin_view(buffer);
  const auto ready = py::reinterpret_steal<py::object>(guarded([&]() -> py::object {
    check_not_given_up(buffer);
    check_host_accessible(buffer);
    return py::none();
  }));
  void* data = pointer_at(buffer.address);
  if (!ready || PyBuffer_FillInfo(view, self, data, static_cast<Py_ssize_t>(buffer.nbytes), 0, flags) != 0) {
    if (is_view) {
      end_view(buffer);
    }
    return -1;
  }
  return 0;
}

void release_buffer(PyObject* self, Py_buffer* /*view*/) { end_view(self_of(self)); }

PyObject* release(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 1> kParameters{"stream"};
  return guarded([&]() -> py::object {
    const auto [stream] = bind_arguments("release", kParameters, {values, count, names}, 0);
    check_releasable(self_of(self));
    give_up(self_of(self), stream);
    return py::none();
  });
}

PyObject* record_stream(PyObject* self, PyObject* stream) {
  return guarded([&]() -> py::object {
    BufferObject& buffer = self_of(self);
    check_not_given_up(buffer);
    const StreamHandle handle = parse_stream(stream);
    memory_of(buffer).pool().require_stream(handle);
    memory_of(buffer).record_stream(handle);
    return py::none();
  });
}

PyObject* enter(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> py::object {
    check_not_given_up(self_of(self));
    return py::reinterpret_borrow<py::object>(self);
  });
}

PyObject* leave(PyObject* self, PyObject* /*exception*/) {
  give_up(self_of(self));
  Py_RETURN_NONE;
}

// copy, deepcopy and pickle all end here.
PyObject* reduce(PyObject* self, PyObject* /*unused*/) {
  PyErr_Format(PyExc_TypeError,
               "cannot pickle '%s' nor copy it: it is a handle on memory of its pool; take bytes(buffer) or "
               "numpy.array(buffer), or allocate another and copy the bytes",
               Py_TYPE(self)->tp_name);
  return nullptr;
}

PyObject* array(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&]() -> py::object {
    const py::object over = py::module_::import("tierpool.integrations.numpy").attr("array_over");
    py::list positional;
    positional.append(py::handle(self));
    for (const py::handle argument : py::reinterpret_borrow<py::tuple>(arguments)) {
      positional.append(argument);
    }
    auto made = py::reinterpret_steal<py::object>(call_python(over, py::tuple(positional), keywords));
    if (!made) {
      throw py::error_already_set();
    }
    return made;
  });
}

PyObject* dlpack(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&] { return export_dlpack(self_of(self), parse_dlpack_arguments(arguments, keywords)); });
}

PyObject* device_tuple(PyObject* self, PyObject* /*unused*/) {
  return guarded([&]() -> py::object { return dlpack_device(self_of(self)); });
}

PyObject* get_nbytes(PyObject* self, void* /*closure*/) { return PyLong_FromUnsignedLongLong(self_of(self).nbytes); }

PyObject* get_address(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    check_not_given_up(self_of(self));
    return py::int_(self_of(self).address);
  });
}

PyObject* get_heap_index(PyObject* self, void* /*closure*/) {
  const std::uint32_t heap_index = self_of(self).heap_index;
  if (heap_index == kNoHeap) {
    Py_RETURN_NONE;
  }
  return PyLong_FromUnsignedLong(heap_index);
}

PyObject* get_stream(PyObject* self, void* /*closure*/) {
  return guarded([&]() -> py::object {
    check_not_given_up(self_of(self));
    const StreamKey& stream = memory_of(self_of(self)).pool().stream();
    return stream == kHostOrder ? py::object(py::none()) : py::int_(stream.handle);
  });
}

PyObject* get_released(PyObject* self, void* /*closure*/) {
  return PyBool_FromLong(self_of(self).views.is_given_up() ? 1 : 0);
}

PyCFunction with_keywords(PyCFunctionWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyCFunction fastcall(_PyCFunctionFastWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"array", with_keywords(array), METH_VARARGS | METH_KEYWORDS,
     "array($self, /, dtype='uint8', shape=None)\n--\n\n"
     "A NumPy array over the memory, without a copy.\n\n"
     "Parameters\n----------\n"
     "dtype : data type of the items\n"
     "shape : int or tuple of int, optional\n"
     "    At most `nbytes` in all; by default one dimension over the whole buffer.\n\n"
     "Raises\n------\n"
     "ValueError\n    When dtype and shape do not fit the buffer.\n"
     "TypeError\n    For a dtype that holds Python objects."},
    {"release", fastcall(release), METH_FASTCALL | METH_KEYWORDS,
     "release($self, /, stream=None)\n--\n\n"
     "Give the memory back now.\n\n"
     "Parameters\n----------\n"
     "stream : int or stream object, optional\n"
     "    The stream of the last use, if it is not the one the buffer was allocated for: the memory is used again\n"
     "    when that stream has done what was enqueued on it by now. Waits for nothing. Objects are those of PyTorch,\n"
     "    CuPy, Numba and whatever has `__cuda_stream__`.\n\n"
     "Raises\n------\n"
     "DeviceError\n    For what is no stream of the device.\n"
     "ValueError\n    When it was given back already.\n"
     "BufferError\n    While an array, a memoryview or a DLPack export still sees it, or after a read of\n"
     "    `__array_interface__`: the memory then comes back by itself when they are gone.\n\n"
     "Notes\n-----\n"
     "`numpy.ndarray(shape, dtype, buffer)` and `torch.frombuffer(buffer)` keep the buffer object but no view that\n"
     "could be counted: under those, drop the buffer instead, or use `array()` and `from_dlpack`."},
    {"record_stream", record_stream, METH_O,
     "record_stream($self, stream, /)\n--\n\n"
     "Say that a further stream uses the memory: what is enqueued on it by the release is waited for before the\n"
     "memory is used again, without blocking anyone.\n\n"
     "Raises\n------\n"
     "ValueError\n    When the buffer was released.\n"
     "DeviceError\n    For what is no stream of the device."},
    {"__enter__", enter, METH_NOARGS, nullptr},
    {"__exit__", leave, METH_VARARGS,
     "Give the handle up; memory that is still seen comes back with the last that sees it."},
    {"__reduce__", reduce, METH_NOARGS, "Refused, and so are copies: raises TypeError."},
    {"copy_from", with_keywords(copy_from), METH_VARARGS | METH_KEYWORDS, kCopyFromDoc},
    {"copy_from_file", with_keywords(copy_from_file), METH_VARARGS | METH_KEYWORDS, kCopyFromFileDoc},
    {"copy_to", with_keywords(copy_to), METH_VARARGS | METH_KEYWORDS, kCopyToDoc},
    {"__dlpack__", with_keywords(dlpack), METH_VARARGS | METH_KEYWORDS,
     "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "Export the bytes as a one-dimensional uint8 DLPack tensor."},
    {"__dlpack_device__", device_tuple, METH_NOARGS,
     "The DLPack device: (1, 0), the processor, or (2, N), CUDA device N."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"nbytes", get_nbytes, nullptr, "Requested size in bytes.", nullptr},
    {"address", get_address, nullptr,
     "Address of the first byte. No count sees who uses it: keep the buffer alive as long.", nullptr},
    {"heap_index", get_heap_index, nullptr, "Heap the memory lives in; None for a fallback.", nullptr},
    {"stream", get_stream, nullptr,
     "Handle of the stream whose order the memory follows, 0 for the default stream; None where the processor reaches\n"
     "the memory, which then follows no stream.",
     nullptr},
    {"released", get_released, nullptr, "Whether the handle was given up.", nullptr},
    {"__array_interface__", get_buffer_interface, nullptr, "NumPy's array interface, version 3.", nullptr},
    {"__cuda_array_interface__", get_cuda_interface, nullptr,
     "CUDA's array interface, version 3; AttributeError for other memory than a GPU's.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(BufferObject, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_doc, const_cast<char*>("Buffer(buffer, /)\n--\n\n"
                                  "Memory from a pool: a handle on one block of a heap, or on a fallback.\n\n"
                                  "Supports the buffer protocol, `numpy.asarray`, DLPack and `with`. The memory goes\n"
                                  "back to the pool with the last object that sees it. One handle is not to be used\n"
                                  "from several threads at once; it may be dropped on any thread.\n\n"
                                  "`MemoryPool.allocate` makes buffers. Called with one, the class, or a subclass,\n"
                                  "takes its memory over, and that one counts as released.")},
    {Py_tp_new, reinterpret_cast<void*>(take_over)},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(repr)},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(release_buffer)},
    {0, nullptr},
};

PyType_Spec spec = {"tierpool._core.Buffer", sizeof(BufferObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, slots};

}  // namespace

bool begin_view(BufferObject& buffer) noexcept { return buffer.views.add(); }

void end_view(BufferObject& buffer) noexcept {
  if (buffer.views.remove()) {
    let_go(buffer);
  }
}

const Buffer& memory_of(const BufferObject& buffer) noexcept {
  return buffer.shared != nullptr ? buffer.shared->memory() : buffer.memory;
}

Buffer& memory_of(BufferObject& buffer) noexcept {
  return buffer.shared != nullptr ? buffer.shared->memory() : buffer.memory;
}

bool is_buffer(py::handle object) noexcept { return PyObject_TypeCheck(object.ptr(), buffer_type) != 0; }

BufferObject& buffer_object(py::handle buffer) noexcept { return self_of(buffer.ptr()); }

void give_up(BufferObject& buffer) noexcept {
  if (buffer.views.give_up()) {
    let_go(buffer);
  }
}

void give_up(BufferObject& buffer, py::handle stream) {
  if (stream.ptr() == nullptr || stream.is_none()) {
    give_up(buffer);
    return;
  }
  const StreamHandle handle = parse_stream(stream);
  memory_of(buffer).pool().require_stream(handle);
  if (buffer.views.give_up()) {
    give_back(memory_of(buffer), handle);
    let_go(buffer);
  }
}

PyObject* new_buffer(MemoryPool& pool, const Allocation& allocation) noexcept {
  void* raw = take_recycled();
  if (raw == nullptr) [[unlikely]] {
    raw = PyObject_Malloc(sizeof(BufferObject));
    if (raw == nullptr) {
      return PyErr_NoMemory();
    }
  }
  PyObject* self = PyObject_Init(static_cast<PyObject*>(raw), buffer_type);
  place(self, Buffer(pool, allocation), allocation);
  return self;
}

void bind_buffer(py::module_& module) {
  buffer_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (buffer_type == nullptr) {
    throw py::error_already_set();
  }
  module.add_object("Buffer", reinterpret_cast<PyObject*>(buffer_type));
  // The module's reference may go at exit while buffers are still made and compared.
  Py_INCREF(buffer_type);
}

}  // namespace tierpool::bindings
