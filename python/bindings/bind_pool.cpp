#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"
#include "buffer_type.hpp"
#include "gil.hpp"
#include "memory_end.hpp"
#include "pool_calls.hpp"
#include "python_log_sink.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::bindings {
namespace {

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
  return ending_without_gil(MemoryPool::create(config, make_device(device)));
}

std::optional<std::uint64_t> parse_optional_bytes(const py::object& value, const char* name) {
  return value.is_none() ? std::nullopt : std::optional(parse_bytes(value, name));
}

PoolPointer construct(const std::string& device, bool enabled, py::handle heap_size_bytes, py::handle num_heaps,
                      const py::iterable& warmup_bytes, bool warmup_is_default, bool track_statistics,
                      bool log_exhaustion, bool track_origins, const std::string& strategy,
                      const std::string& placement, const std::string& on_exhaustion, const py::object& max_bytes,
                      bool magazines, py::handle exact_above_bytes, const py::object& magazine_thread_bytes,
                      const py::object& magazine_total_bytes) {
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
  config.max_bytes = parse_optional_bytes(max_bytes, "max_bytes");
  config.magazines = magazines;
  config.exact_above_bytes = parse_bytes(exact_above_bytes, "exact_above");
  config.magazine_thread_bytes = parse_optional_bytes(magazine_thread_bytes, "magazine_thread_bytes");
  config.magazine_total_bytes = parse_optional_bytes(magazine_total_bytes, "magazine_total_bytes");
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
  py::class_<MemoryPool, PoolPointer> type(module, "MemoryPool",
                                           "The pool itself; `tierpool.MemoryPool` configures it.");
  add_pool_calls(type);
  module.def(
      "with_own_calls",
      [](const py::type& pool_class) {
        add_pool_calls(pool_class);
        return pool_class;
      },
      py::arg("pool_class"),
      "Give a subclass of MemoryPool the compiled calls as its own: CPython calls a method at once only on objects of\n"
      "the very class that it was made for.");
  type.def(py::init(&construct), py::kw_only(), py::arg("device"), py::arg("enabled"), py::arg("heap_size_bytes"),
           py::arg("num_heaps"), py::arg("warmup_bytes"), py::arg("warmup_is_default"), py::arg("track_statistics"),
           py::arg("log_exhaustion"), py::arg("track_origins"), py::arg("strategy"), py::arg("placement"),
           py::arg("on_exhaustion"), py::arg("max_bytes"), py::arg("magazines"), py::arg("exact_above_bytes"),
           py::arg("magazine_thread_bytes"), py::arg("magazine_total_bytes"))
      .def(
          "acquire_heap",
          [](const PoolPointer& pool) { return allocate_request(pool, {.bytes = pool->heap_size_bytes()}); },
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
          "closed", [](const PoolPointer& pool) { return pool->is_closed(); },
          "Whether close() was called, or the device did not survive a fork.")
      .def_property_readonly(
          "device", [](const PoolPointer& pool) { return pool->device().name(); }, "Name of the device.")
      .def_property_readonly(
          "host_accessible", [](const PoolPointer& pool) { return pool->device().host_accessible(); },
          "Whether the processor reaches the memory, so that NumPy and `memoryview` can show it.")
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
