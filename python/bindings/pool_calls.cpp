#include "pool_calls.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "buffer_batch.hpp"
#include "call_origin.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "held_value.hpp"
#include "python_log_sink.hpp"
#include "stream_argument.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::bindings {
namespace {

PyObject* make_buffer(MemoryPool& lane, const Allocation& allocation) noexcept {
  PyObject* made = new_buffer(lane, allocation);
  if (made == nullptr) [[unlikely]] {
    static_cast<void>(lane.release(allocation));
  }
  return made;
}

/// What is left to do after a first attempt that would not block: wait for the device, or say what went wrong.
py::object finish(MemoryPool& lane, AllocationRequest request, AllocationOutcome outcome, Allocation& allocation) {
  const LogDelivery logs;
  if (outcome == AllocationOutcome::would_block) {
    const WithoutGil without_gil;
    request.may_block = true;
    outcome = lane.serve(request, allocation);
  }
  if (outcome == AllocationOutcome::served) {
    auto made = py::reinterpret_steal<py::object>(make_buffer(lane, allocation));
    if (!made) {
      throw py::error_already_set();
    }
    if (lane.config().track_origins) {
      lane.set_origin(allocation, call_origin());
    }
    return made;
  }
  if (request.heaps_only && outcome != AllocationOutcome::closed) {
    return py::none();
  }
  lane.throw_failure(outcome, request.bytes);
}

PyObject* serve(MemoryPool& lane, const AllocationRequest& request) noexcept {
  Allocation allocation;
  const AllocationOutcome outcome = lane.serve(request, allocation);
  if (outcome != AllocationOutcome::served || lane.config().track_origins) [[unlikely]] {
    return guarded([&] { return finish(lane, request, outcome, allocation); });
  }
  PyObject* made = make_buffer(lane, allocation);
  deliver_waiting_records();
  return made;
}

struct ParsedRequest {
  AllocationRequest request;
  StreamHandle stream = kDefaultStream;
};

ParsedRequest parse_request(const MemoryPool& pool, const char* function, const CallArguments& given) {
  static constexpr std::array<const char*, 3> kParameters{"size", "alignment", "stream"};
  const auto [size, alignment, stream] = bind_arguments(function, kParameters, given);
  ParsedRequest parsed;
  parsed.request.bytes = parse_bytes(size, "size");
  if (alignment != nullptr && alignment != Py_None) {
    parsed.request.alignment_bytes = parse_bytes(alignment, "alignment");
    pool.check_alignment(parsed.request.alignment_bytes);
  }
  parsed.stream = parse_stream(stream);
  return parsed;
}

/// `allocate(size)` and `allocate(size, stream=)` with exact ints, without an exception; the rest is parsed.
bool read_request(const CallArguments& given, ParsedRequest& parsed) noexcept {
  if (given.positional_count != 1 || !read_bytes(given.values[0], parsed.request.bytes)) [[unlikely]] {
    return false;
  }
  return given.names == nullptr || (PyTuple_GET_SIZE(given.names) == 1 && is_stream_name(given.names) &&
                                    read_bytes(given.values[1], parsed.stream));
}

PyObject* serve_call(PyObject* self, const char* function, const CallArguments& given, bool heaps_only) {
  const PoolPointer* pool = find_pool<MemoryPool>(self);
  ParsedRequest parsed;
  if (pool == nullptr || !read_request(given, parsed)) [[unlikely]] {
    const auto done = py::reinterpret_steal<py::object>(guarded([&]() -> py::object {
      pool = &require_pool<MemoryPool>(self);
      parsed = parse_request(**pool, function, given);
      return py::none();
    }));
    if (!done) {
      return nullptr;
    }
  }
  MemoryPool* lane = pool->get();
  if (parsed.stream > kLegacyStream) {
    AllocationOutcome refusal = AllocationOutcome::served;
    lane = (*pool)->lane(parsed.stream, refusal);
    if (lane == nullptr) [[unlikely]] {
      return guarded([&]() -> py::object { (*pool)->throw_no_lane(refusal, parsed.stream); });
    }
  }
  parsed.request.heaps_only = heaps_only;
  parsed.request.may_block = false;
  return serve(*lane, parsed.request);
}

PyObject* allocate(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  return serve_call(self, "allocate", {values, count, names}, false);
}

PyObject* try_allocate(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  return serve_call(self, "try_allocate", {values, count, names}, true);
}

void note_origins(MemoryPool& pool, const std::vector<Allocation>& allocations) {
  if (pool.config().track_origins) {
    const std::string origin = call_origin();
    for (const Allocation& allocation : allocations) {
      pool.set_origin(allocation, origin);
    }
  }
}

PyObject* allocate_batch(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 1> kParameters{"sizes"};
  return guarded([&]() -> py::object {
    const LogDelivery logs;
    const PoolPointer& pool = require_pool<MemoryPool>(self);
    const auto [sizes] = bind_arguments("allocate_batch", kParameters, {values, count, names});
    const std::vector<std::uint64_t> bytes = parse_sizes(sizes);
    BufferBatch batch(*pool);
    {
      const WithoutGil without_gil;
      batch.allocate(bytes);
    }
    note_origins(*pool, batch.allocations());
    return py::cast(std::move(batch));
  });
}

PyObject* release(PyObject* self, PyObject* const* values, Py_ssize_t count, PyObject* names) {
  static constexpr std::array<const char*, 2> kParameters{"buffer", "stream"};
  return guarded([&]() -> py::object {
    const LogDelivery logs;
    const MemoryPool& pool = *require_pool<MemoryPool>(self);
    const auto [buffer, stream] = bind_arguments("release", kParameters, {values, count, names});
    if (!is_buffer(buffer)) {
      throw py::type_error(std::string("release() takes a tierpool.Buffer, got ") + Py_TYPE(buffer)->tp_name);
    }
    give_up(own_buffer(pool, buffer), stream);
    return py::none();
  });
}

PyCFunction fastcall(_PyCFunctionFastWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"allocate", fastcall(allocate), METH_FASTCALL | METH_KEYWORDS,
     "allocate($self, /, size, alignment=256, stream=None)\n--\n\n"
     "Memory of at least `size` bytes, from a heap or, by `on_exhaustion`, from the device.\n\n"
     "Parameters\n----------\n"
     "size : int\n    Bytes; 0 gives an empty buffer.\n"
     "alignment : int\n    A power of two, in bytes.\n"
     "stream : int or stream object, optional\n"
     "    Whose work will use the memory; by default the device's default stream. Memory released on a stream is free\n"
     "    for it at once, and for others when it has finished with it. Objects are those of PyTorch, CuPy, Numba and\n"
     "    whatever has `__cuda_stream__`.\n\n"
     "Raises\n------\n"
     "OutOfMemoryError\n    When neither can serve it.\n"
     "PoolClosedError\n    After `close()`.\n"
     "DeviceError\n    For what is no stream of the device, or one that is being captured into a graph; in a forked\n"
     "    child, where CUDA does not work.\n"
     "TypeError, ValueError, OverflowError\n    For a bad size or alignment.\n\n"
     "Notes\n-----\nMay be called from any thread."},
    {"try_allocate", fastcall(try_allocate), METH_FASTCALL | METH_KEYWORDS,
     "try_allocate($self, /, size, alignment=256, stream=None)\n--\n\n"
     "Memory from a heap, or None: no fallback, whatever `on_exhaustion` says, and no wait for a stream.\n\n"
     "Parameters and errors are those of `allocate`, but for OutOfMemoryError. May be called from any thread."},
    {"allocate_batch", fastcall(allocate_batch), METH_FASTCALL | METH_KEYWORDS,
     "allocate_batch($self, /, sizes)\n--\n\n"
     "One buffer a size, or none at all.\n\n"
     "Parameters\n----------\n"
     "sizes : integer array of one dimension, or iterable of int\n    Bytes.\n\n"
     "Raises\n------\n"
     "OutOfMemoryError\n    When one of them cannot be served; the others were given back.\n\n"
     "Notes\n-----\nMay be called from any thread."},
    {"release", fastcall(release), METH_FASTCALL | METH_KEYWORDS,
     "release($self, /, buffer, stream=None)\n--\n\n"
     "Give a buffer's memory back now: `buffer.release(stream)`, with a check that it is this pool's.\n\n"
     "Raises\n------\n"
     "ValueError\n    For a buffer of another pool or one released already.\n"
     "BufferError\n    While something still sees the memory."},
};

}  // namespace

py::object allocate_request(const PoolPointer& pool, AllocationRequest request) {
  request.may_block = false;
  auto made = py::reinterpret_steal<py::object>(serve(*pool, request));
  if (!made) {
    throw py::error_already_set();
  }
  return made;
}

BufferObject& own_buffer(const MemoryPool& pool, py::handle object) {
  BufferObject& buffer = buffer_object(object);
  check_releasable(buffer);
  if (!pool.owns_lane(memory_of(buffer).pool())) {
    throw InvalidHandleError("the buffer of " + std::to_string(buffer.nbytes) +
                             " bytes belongs to another pool; release it there or by buffer.release()");
  }
  return buffer;
}

void add_pool_calls(py::handle type) {
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
