#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arena_calls.hpp"
#include "arguments.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "lease_type.hpp"
#include "memory_end.hpp"
#include "python_log_sink.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool::bindings {
namespace {

std::optional<std::uint64_t> parse_limit(py::handle value, const char* name) {
  return value.is_none() ? std::nullopt : std::optional(parse_bytes(value, name));
}

BufferPoolPointer construct(const std::shared_ptr<MemoryPool>& source, const std::string& size_classes,
                            py::handle max_bytes, py::handle max_buffers, const std::string& zero, bool checked,
                            bool track_origins, bool pin_registered) {
  BufferPoolConfig config;
  config.size_classes = parse_size_classes(size_classes);
  config.max_bytes = parse_limit(max_bytes, "max_bytes");
  config.max_buffers = parse_limit(max_buffers, "max_buffers");
  config.zero = parse_zero_policy(zero);
  config.checked = checked;
  config.track_origins = track_origins;
  config.pin_registered = pin_registered;
  return ending_without_gil(std::make_shared<BufferPool>(config, source));
}

std::uint64_t trim(BufferPool& pool, py::handle nbytes) {
  const LogDelivery logs;
  const std::uint64_t bytes = parse_bytes(nbytes, "nbytes");
  const WithoutGil without_gil;
  return pool.trim(bytes);
}

void close(BufferPool& pool) {
  const LogDelivery logs;
  const WithoutGil without_gil;
  pool.close();
}

void clear(BufferPool& pool) {
  const LogDelivery logs;
  const WithoutGil without_gil;
  pool.clear();
}

Registration register_existing(BufferPool& pool, std::uint64_t address, std::uint64_t nbytes) {
  const WithoutGil without_gil;
  pool.register_existing(address, nbytes);
  for (const Registration& one : pool.registrations()) {
    if (one.address == address && one.bytes == nbytes) {
      return one;
    }
  }
  return {.address = address, .bytes = nbytes};  // another thread has ended it already
}

bool unregister_existing(BufferPool& pool, std::uint64_t address, std::uint64_t nbytes) {
  const WithoutGil without_gil;
  return pool.unregister_existing(address, nbytes);
}

void bind_registration(py::module_& module) {
  py::class_<Registration>(module, "Registration", "External memory that a buffer pool accounts for.")
      .def_readonly("address", &Registration::address, "Address of the first byte.")
      .def_readonly("nbytes", &Registration::bytes, "Size in bytes.")
      .def_readonly("pinned", &Registration::pinned,
                    "Whether it is locked into RAM; False when that is switched off or the system refused.")
      .def("__repr__", [](const Registration& self) {
        return "Registration(address=" + std::to_string(self.address) + ", nbytes=" + std::to_string(self.bytes) +
               ", pinned=" + (self.pinned ? "True)" : "False)");
      });
}

}  // namespace

void bind_arena(py::module_& module) {
  bind_registration(module);
  py::class_<BufferPool, BufferPoolPointer> pool(module, "BufferPool",
                                                 "The arena itself; `tierpool.BufferPool` configures it.");
  pool.def(py::init(&construct), py::kw_only(), py::arg("source"), py::arg("size_classes"), py::arg("max_bytes"),
           py::arg("max_buffers"), py::arg("zero"), py::arg("checked"), py::arg("track_origins"),
           py::arg("pin_registered"));
  add_arena_calls(pool);
  pool.def("clear", &clear, "Give every free buffer back to the source; live leases stay valid.")
      .def("trim", &trim, py::arg("nbytes"),
           "Give at least `nbytes` of free buffers back to the source, or all there are.\n\n"
           "Returns\n-------\nint\n    Bytes given back.")
      .def("close", &close,
           "Refuse new leases, give free buffers back and end registrations. Live leases stay valid; their memory\n"
           "goes back to the source as they end.")
      .def_property_readonly("closed", &BufferPool::is_closed, "Whether close() was called.")
      .def_property_readonly("free_count", &BufferPool::free_count, "Buffers that wait to be leased again.")
      .def_property_readonly("free_bytes", &BufferPool::free_bytes, "What they hold: bytes of their size classes.")
      .def_property_readonly("in_use_count", &BufferPool::in_use_count, "Live leases.")
      .def("registrations", &BufferPool::registrations, "The external memory that is registered, by address.")
      .def("get_statistics", &BufferPool::statistics, "An exact snapshot. May be called from any thread.")
      .def("_register_existing", &register_existing, py::arg("address"), py::arg("nbytes"))
      .def("_unregister_existing", &unregister_existing, py::arg("address"), py::arg("nbytes"));
}

}  // namespace tierpool::bindings
