#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"
#include "buffer_batch.hpp"
#include "buffer_type.hpp"
#include "call_origin.hpp"
#include "gil.hpp"
#include "python_log_sink.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::bindings {
namespace {

using PoolPointer = std::shared_ptr<MemoryPool>;

// The GIL is let go only for what blocks: a free block of committed memory costs less than letting go.
AllocationOutcome serve(MemoryPool& pool, AllocationRequest request, Allocation& allocation) {
  request.may_block = false;
  const AllocationOutcome outcome = pool.serve(request, allocation);
  if (outcome != AllocationOutcome::would_block) {
    return outcome;
  }
  const WithoutGil without_gil;
  request.may_block = true;
  return pool.serve(request, allocation);
}

void note_origin(MemoryPool& pool, const Allocation& allocation) {
  if (pool.config().track_origins) {
    pool.set_origin(allocation, call_origin());
  }
}

py::object wrap(const PoolPointer& pool, const Allocation& allocation) {
  Buffer memory(pool, allocation);
  note_origin(*pool, allocation);
  return make_buffer(std::move(memory));
}

AllocationRequest parse_request(const MemoryPool& pool, py::handle size, py::handle alignment) {
  AllocationRequest request;
  request.bytes = parse_bytes(size, "size");
  if (!alignment.is_none()) {
    request.alignment_bytes = parse_bytes(alignment, "alignment");
    pool.check_alignment(request.alignment_bytes);
  }
  return request;
}

py::object allocate_request(const PoolPointer& pool, const AllocationRequest& request) {
  Allocation allocation;
  const AllocationOutcome outcome = serve(*pool, request, allocation);
  if (outcome != AllocationOutcome::served) {
    pool->throw_failure(outcome, request.bytes);
  }
  return wrap(pool, allocation);
}

py::object allocate(const PoolPointer& pool, py::handle size, py::handle alignment) {
  const LogDelivery logs;
  return allocate_request(pool, parse_request(*pool, size, alignment));
}

py::object try_allocate(const PoolPointer& pool, py::handle size, py::handle alignment) {
  const LogDelivery logs;
  AllocationRequest request = parse_request(*pool, size, alignment);
  request.heaps_only = true;
  Allocation allocation;
  const AllocationOutcome outcome = serve(*pool, request, allocation);
  if (outcome == AllocationOutcome::closed) {
    pool->throw_failure(outcome, request.bytes);
  }
  return outcome == AllocationOutcome::served ? wrap(pool, allocation) : py::none();
}

BufferBatch allocate_batch(const PoolPointer& pool, py::handle sizes) {
  const LogDelivery logs;
  const std::vector<std::uint64_t> bytes = parse_sizes(sizes);
  std::vector<Buffer> memory;
  memory.reserve(bytes.size());  // first: nothing may fail between the allocations and their owners
  {
    const WithoutGil without_gil;
    for (const Allocation& allocation : pool->allocate_batch(bytes)) {
      memory.emplace_back(pool, allocation);
    }
  }
  for (const Buffer& buffer : memory) {
    note_origin(*pool, buffer.allocation());
  }
  return BufferBatch(std::move(memory));
}

BufferObject& own_buffer(const MemoryPool& pool, py::handle object) {
  BufferObject& buffer = buffer_object(object);
  check_releasable(buffer);
  if (memory_of(buffer).pool().get() != &pool) {
    throw InvalidHandleError("the buffer of " + std::to_string(buffer.nbytes) +
                             " bytes belongs to another pool; release it there or by buffer.release()");
  }
  return buffer;
}

void release(const PoolPointer& pool, py::handle object) {
  const LogDelivery logs;
  if (!is_buffer(object)) {
    throw py::type_error(std::string("release() takes a tierpool.Buffer, got ") + Py_TYPE(object.ptr())->tp_name);
  }
  give_up(own_buffer(*pool, object));
}

void release_heap(const PoolPointer& pool, py::handle object) {
  const LogDelivery logs;
  if (object.is_none()) {
    return;
  }
  if (!is_buffer(object)) {
    throw InvalidHandleError(std::string("release_heap() takes what acquire_heap() returned, got ") +
                             Py_TYPE(object.ptr())->tp_name);
  }
  BufferObject& buffer = own_buffer(*pool, object);
  if (!pool->is_whole_heap(memory_of(buffer).allocation())) {
    throw InvalidHandleError("a buffer of " + std::to_string(buffer.nbytes) + " bytes is not a whole heap of " +
                             std::to_string(pool->heap_size_bytes()) + " bytes; release it by buffer.release()");
  }
  give_up(buffer);
}

WarmupReport warm_up(const PoolPointer& pool, const std::vector<std::uint64_t>& sizes_bytes, bool sizes_are_default,
                     const py::object& progress) {
  const LogDelivery logs;
  WarmupProgress report;
  if (!progress.is_none()) {
    report = [&progress](std::uint64_t done_bytes, std::uint64_t total_bytes) {
      const py::gil_scoped_acquire with_gil;
      progress(done_bytes, total_bytes);
    };
  }
  const WithoutGil without_gil;
  return pool->warm_up(sizes_bytes, report, sizes_are_default);
}

PoolPointer make_pool(const std::string& device, const PoolConfig& config) {
  const LogDelivery logs;
  const WithoutGil without_gil;
  return MemoryPool::create(config, make_device(device));
}

PoolPointer construct(const std::string& device, bool enabled, py::handle heap_size_bytes, py::handle num_heaps,
                      const py::iterable& warmup_bytes, bool warmup_is_default, bool track_statistics,
                      bool log_exhaustion, bool track_origins, const std::string& strategy,
                      const std::string& placement, const std::string& on_exhaustion, const py::object& max_bytes) {
  PoolConfig config;
  config.enabled = enabled;
  config.heap_size_bytes = parse_bytes(heap_size_bytes, "heap_size_bytes");
  const std::uint64_t heaps = parse_bytes(num_heaps, "num_heaps");
  if (heaps > kNoHeap - 1) {
    throw ConfigError("Failed to initialize MetalMemoryPool: num_heaps must be below 2**32, got " +
                      std::to_string(heaps));
  }
  config.num_heaps = static_cast<std::uint32_t>(heaps);
  config.warmup_bytes.clear();
  for (const py::handle bytes : warmup_bytes) {
    config.warmup_bytes.push_back(parse_bytes(bytes, "warmup_bytes"));
  }
  config.warmup_is_default = warmup_is_default;
  config.track_statistics = track_statistics;
  config.log_exhaustion = log_exhaustion;
  config.track_origins = track_origins;
  config.strategy = parse_strategy(strategy);
  config.placement = parse_placement(placement);
  config.on_exhaustion = parse_on_exhaustion(on_exhaustion);
  if (!max_bytes.is_none()) {
    config.max_bytes = parse_bytes(max_bytes, "max_bytes");
  }
  return make_pool(device, config);
}

}  // namespace

void bind_pool(py::module_& module) {
  py::class_<WarmupReport>(module, "WarmupReport", "What a warm-up did.")
      .def_readonly("warm_bytes", &WarmupReport::warm_bytes, "Bytes asked to be warm, over all heaps.")
      .def_readonly("committed_bytes", &WarmupReport::committed_bytes, "Newly committed, in whole granules.")
      .def_readonly("milliseconds", &WarmupReport::milliseconds, "Time it took.")
      .def("__repr__", [](const WarmupReport& self) {
        return "WarmupReport(warm_bytes=" + std::to_string(self.warm_bytes) +
               ", committed_bytes=" + std::to_string(self.committed_bytes) +
               ", milliseconds=" + py::cast<std::string>(py::repr(py::cast(self.milliseconds))) + ")";
      });

  using Logging = py::call_guard<LogDelivery>;
  const py::object default_alignment = py::int_(kUnitBytes);
  py::class_<MemoryPool, PoolPointer>(module, "MemoryPool", "The pool itself; `tierpool.MemoryPool` configures it.")
      .def(py::init(&construct), py::kw_only(), py::arg("device"), py::arg("enabled"), py::arg("heap_size_bytes"),
           py::arg("num_heaps"), py::arg("warmup_bytes"), py::arg("warmup_is_default"), py::arg("track_statistics"),
           py::arg("log_exhaustion"), py::arg("track_origins"), py::arg("strategy"), py::arg("placement"),
           py::arg("on_exhaustion"), py::arg("max_bytes"))
      .def("allocate", &allocate, py::arg("size"), py::arg("alignment") = default_alignment,
           "Memory of at least `size` bytes, from a heap or, by `on_exhaustion`, from the device.\n\n"
           "Parameters\n----------\n"
           "size : int\n    Bytes; 0 gives an empty buffer.\n"
           "alignment : int\n    A power of two, in bytes.\n\n"
           "Raises\n------\n"
           "OutOfMemoryError\n    When neither can serve it.\n"
           "PoolClosedError\n    After `close()`.\n"
           "TypeError, ValueError, OverflowError\n    For a bad size or alignment.\n\n"
           "Notes\n-----\nMay be called from any thread.")
      .def("try_allocate", &try_allocate, py::arg("size"), py::arg("alignment") = default_alignment,
           "Memory from a heap, or None at once: no fallback, whatever `on_exhaustion` says.\n\n"
           "Parameters and errors are those of `allocate`, but for OutOfMemoryError. May be called from any thread.")
      .def("allocate_batch", &allocate_batch, py::arg("sizes"),
           "One buffer a size, or none at all.\n\n"
           "Parameters\n----------\n"
           "sizes : integer array of one dimension, or iterable of int\n    Bytes.\n\n"
           "Raises\n------\n"
           "OutOfMemoryError\n    When one of them cannot be served; the others were given back.\n\n"
           "Notes\n-----\nMay be called from any thread.")
      .def("release", &release, py::arg("buffer"),
           "Give a buffer's memory back now: `buffer.release()`, with a check that it is this pool's.\n\n"
           "Raises\n------\n"
           "ValueError\n    For a buffer of another pool or one released already.\n"
           "BufferError\n    While something still sees the memory.")
      .def(
          "acquire_heap",
          [](const PoolPointer& pool) {
            const LogDelivery logs;
            return allocate_request(pool, {.bytes = pool->heap_size_bytes()});
          },
          "A heap with no live block, as one buffer of exactly the heap's size.\n\n"
          "Raises\n------\n"
          "OutOfMemoryError\n    When no heap is free and the device cannot serve a buffer of that size instead.")
      .def("release_heap", &release_heap, py::arg("heap").none(true),
           "Give back what `acquire_heap()` returned; None is ignored.\n\n"
           "Raises\n------\n"
           "ValueError\n    For anything that is not a whole heap of this pool.")
      .def(
          "trim",
          [](const PoolPointer& pool) {
            const LogDelivery logs;
            const WithoutGil without_gil;
            return pool->trim();
          },
          "Give the memory of free granules back to the device.\n\n"
          "Returns\n-------\nint\n    Bytes given back. They are committed again when they are next allocated.")
      .def(
          "close",
          [](const PoolPointer& pool) {
            const LogDelivery logs;
            const WithoutGil without_gil;
            pool->close();
          },
          "Refuse new work and report what is still live; its memory goes with its last user. Never raises for that.")
      .def_property_readonly(
          "closed", [](const PoolPointer& pool) { return pool->is_closed(); }, "Whether close() was called.")
      .def_property_readonly(
          "device", [](const PoolPointer& pool) { return pool->device().name(); }, "Name of the device.")
      .def(
          "get_statistics", [](const PoolPointer& pool) { return pool->statistics(); }, Logging(),
          "A snapshot of the whole pool. May be called from any thread.")
      .def(
          "reset_statistics", [](const PoolPointer& pool) { pool->reset_statistics(); }, Logging(),
          "Start counting anew; what is live stays known.")
      .def(
          "heaps", [](const PoolPointer& pool) { return pool->heaps(); }, Logging(),
          "A snapshot of each heap. May be called from any thread.")
      .def("_warm_up", &warm_up, py::arg("sizes_bytes"), py::arg("sizes_are_default"), py::arg("progress").none(true));
}

}  // namespace tierpool::bindings
