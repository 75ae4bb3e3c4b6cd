#include "arena_calls.hpp"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "call_origin.hpp"
#include "completion_event.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "held_value.hpp"
#include "lease_batch.hpp"
#include "lease_type.hpp"
#include "memory_end.hpp"
#include "python_log_sink.hpp"
#include "tierpool/base/errors.hpp"
#include "viewed_leases.hpp"

namespace tierpool::bindings {
namespace {

/// One of the two ways to lease: the attempt that neither waits nor logs, and the whole of it.
struct Way {
  const char* name;
  bool (BufferPool::*attempt)(std::uint64_t, Lease&) noexcept;
  Lease (BufferPool::*lease)(std::uint64_t);
};

constexpr Way kByClass{"alloc", &BufferPool::try_alloc, &BufferPool::alloc};
constexpr Way kExactly{"alloc_exact", &BufferPool::try_alloc_exact, &BufferPool::alloc_exact};

void note_origins(BufferPool& pool, std::span<const Lease> leases) {
  if (pool.config().track_origins) {
    const std::string origin = call_origin();
    for (const Lease& lease : leases) {
      pool.set_origin(lease, origin);
    }
  }
}

// The GIL is let go only for what blocks: a free buffer costs less than letting go.
Lease lease_slowly(BufferPool& pool, const Way& way, std::uint64_t nbytes) {
  const LogDelivery logs;
  const WithoutGil without_gil;
  return (pool.*way.lease)(nbytes);
}

py::object alloc_with_layout(PyObject* self, const Way& way, const CallArguments& given) {
  static constexpr std::array<const char*, 3> kParameters{"nbytes", "dtype", "shape"};
  const BufferPoolPointer& pool = require_pool<BufferPool>(self);
  const auto [size, dtype, shape] = bind_arguments(way.name, kParameters, given);
  const std::uint64_t nbytes = parse_bytes(size, "nbytes");
  ArrayLayout layout = parse_layout(nbytes, dtype, shape);
  Lease lease;
  if (!(*pool.*way.attempt)(nbytes, lease)) {
    lease = lease_slowly(*pool, way, nbytes);
  }
  auto made = py::reinterpret_steal<py::object>(new_lease(pool, lease, std::move(layout)));
  if (!made) {
    throw py::error_already_set();
  }
  note_origins(*pool, {&lease, 1});
  return made;
}

PyObject* alloc_by(PyObject* self, const Way& way, const CallArguments& given) {
  const BufferPoolPointer* pool = find_pool<BufferPool>(self);
  std::uint64_t nbytes = 0;
  const bool is_plain = pool != nullptr && given.positional_count == 1 && given.names == nullptr &&
                        read_bytes(given.values[0], nbytes) && !(*pool)->config().track_origins;
  Lease lease;
  if (is_plain && (**pool.*way.attempt)(nbytes, lease)) [[likely]] {
    return new_lease(*pool, lease, {});
  }
  return guarded([&] { return alloc_with_layout(self, way, given); });
}

PyObject* alloc(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  return alloc_by(self, kByClass, {values, count, names});
}

PyObject* alloc_exact(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  return alloc_by(self, kExactly, {values, count, names});
}

PyObject* alloc_batch(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 1> kParameters{"requests"};
  return guarded([&]() -> py::object {
    const BufferPoolPointer& pool = require_pool<BufferPool>(self);
    const auto [given] = bind_arguments("alloc_batch", kParameters, {values, count, names});
    LeaseRequests requests = parse_requests(given);
    std::vector<Lease> leases(requests.sizes.size());
    if (!pool->try_alloc_batch(requests.sizes, leases)) {
      const LogDelivery logs;
      const WithoutGil without_gil;
      pool->alloc_batch(requests.sizes, leases);
    }
    LeaseBatch batch(pool, std::move(leases), std::move(requests.layouts));
    note_origins(*pool, batch.leases());
    return py::cast(std::move(batch));
  });
}

PyObject* release(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 1> kParameters{"lease"};
  return guarded([&]() -> py::object {
    BufferPool& pool = *require_pool<BufferPool>(self);
    const auto [lease] = bind_arguments("release", kParameters, {values, count, names});
    if (!is_lease(lease)) {
      throw py::type_error(std::string("release() takes a tierpool.Lease, got ") + Py_TYPE(lease)->tp_name);
    }
    release_now(lease_object(lease), pool);
    return py::none();
  });
}

[[noreturn]] void refuse_reset(const BufferPool& pool) {
  throw py::buffer_error("cannot reset the buffer pool under live views: " + describe_views(pool) +
                         "; drop them before the reset, or keep what outlives a step out of the pool");
}

PyObject* reset(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 1> kParameters{"after"};
  return guarded([&]() -> py::object {
    const LogDelivery logs;
    BufferPool& pool = *require_pool<BufferPool>(self);
    const auto [after] = bind_arguments("reset", kParameters, {values, count, names}, 0);
    if (end_all_leases(pool, parse_event(after)) == ResetOutcome::live_views) {
      refuse_reset(pool);
    }
    return py::none();
  });
}

PyCFunction fastcall(_PyCFunctionFastWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"alloc", fastcall(alloc), METH_FASTCALL | METH_KEYWORDS,
     "alloc($self, /, nbytes, dtype='uint8', shape=None)\n--\n\n"
     "Lease scratch memory until it is released, dropped or the pool is reset.\n\n"
     "Parameters\n----------\n"
     "nbytes : int\n    Bytes; 0 gives an empty lease.\n"
     "dtype : data type that views show\n"
     "shape : int or tuple of int, optional\n"
     "    Shape that views show; by default one dimension. The items fill `nbytes` exactly.\n\n"
     "Returns\n-------\nLease\n\n"
     "Raises\n------\n"
     "OutOfMemoryError\n    When `max_bytes` or `max_buffers` would be exceeded or the source has no memory.\n"
     "PoolClosedError\n    After `close()`.\n"
     "TypeError, ValueError, OverflowError\n    For arguments that are wrong or contradict each other.\n\n"
     "Notes\n-----\nMay be called from any thread. The size class is never seen: `nbytes` is the length."},
    {"alloc_exact", fastcall(alloc_exact), METH_FASTCALL | METH_KEYWORDS,
     "alloc_exact($self, /, nbytes, dtype='uint8', shape=None)\n--\n\n"
     "The same from a buffer of exactly `nbytes`: for what is large and lives long.\n\n"
     "Parameters, errors and threads are those of `alloc`."},
    {"alloc_batch", fastcall(alloc_batch), METH_FASTCALL | METH_KEYWORDS,
     "alloc_batch($self, /, requests)\n--\n\n"
     "One lease a request, or none at all.\n\n"
     "Parameters\n----------\n"
     "requests : integer array of one dimension, or iterable\n"
     "    Bytes, or tuples of the arguments of `alloc`.\n\n"
     "Returns\n-------\nLeaseBatch\n\n"
     "Raises\n------\n"
     "OutOfMemoryError\n    When one of them cannot be served; the others were given back.\n"
     "PoolClosedError, TypeError, ValueError, OverflowError\n    As `alloc`.\n\n"
     "Notes\n-----\nMay be called from any thread."},
    {"release", fastcall(release), METH_FASTCALL | METH_KEYWORDS,
     "release($self, /, lease)\n--\n\n"
     "End a lease now: `lease.release()`, with a check that it is this pool's.\n\n"
     "Raises\n------\n"
     "StaleBufferError\n    For a lease that has ended already or that another pool gave out.\n"
     "BufferError\n    In checked mode, while something still sees the memory."},
    {"reset", fastcall(reset), METH_FASTCALL | METH_KEYWORDS,
     "reset($self, /, after=None)\n--\n\n"
     "End every lease; the time does not depend on how many there are.\n\n"
     "Parameters\n----------\n"
     "after : CompletionEvent, optional\n"
     "    Work in flight that still uses the memory: it is handed out again once `after.is_complete()`.\n\n"
     "Raises\n------\n"
     "BufferError\n    In checked mode, while views are live: it names them, and nothing has changed.\n"
     "TypeError\n    For an event without `is_complete()` and `wait()`.\n\n"
     "Notes\n-----\nMay be called from any thread; it ends the leases of all threads."},
};

}  // namespace

void add_arena_calls(const py::handle& type) {
  for (PyMethodDef& method : methods) {
    const auto descriptor =
        py::reinterpret_steal<py::object>(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method));
    if (!descriptor) {
      throw py::error_already_set();
    }
    type.attr(method.ml_name) = descriptor;
  }
}

}  // namespace tierpool::bindings
