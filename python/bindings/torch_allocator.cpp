// What PyTorch's pluggable allocators call, by name or by address: memory of the pool installed for a device. Runs on
// threads with and without the GIL: nothing here takes it or calls Python. A record that a device makes of memory it
// does not take back waits in the log's queue for the next call from Python.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "bindings.hpp"
#include "buffer_type.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/pool/installed_pools.hpp"

namespace tp = tierpool;

namespace {

tp::StreamHandle handle_of(const void* stream) noexcept { return reinterpret_cast<std::uintptr_t>(stream); }

std::uint64_t bytes_of(ssize_t size) noexcept { return size < 0 ? UINT64_MAX : static_cast<std::uint64_t>(size); }

}  // namespace

extern "C" {

/// Memory for a stream, null when there is none: for `torch.cuda.MemPool`, which then frees and tries again.
[[gnu::visibility("default")]] void* tierpool_torch_allocate(ssize_t size, int device, void* stream) noexcept {
  tp::AllocationOutcome outcome{};
  return tp::pointer_at(tp::installed_pools::allocate(device, bytes_of(size), handle_of(stream), outcome));
}

/// As above, but throws instead: for `change_current_allocator`, which takes null for an address.
[[gnu::visibility("default")]] void* tierpool_torch_allocate_or_throw(ssize_t size, int device, void* stream) {
  tp::AllocationOutcome outcome{};
  const std::uint64_t address = tp::installed_pools::allocate(device, bytes_of(size), handle_of(stream), outcome);
  if (address == 0) {
    tp::installed_pools::throw_failure(device, bytes_of(size), handle_of(stream), outcome);
  }
  return tp::pointer_at(address);
}

/// Null and what is not of a pool are ignored. So is the stream: PyTorch passes that of the allocation, which the
/// address tells, never that of the last use, and it may have been destroyed or mean another thread's since.
[[gnu::visibility("default")]] void tierpool_torch_free(void* pointer, ssize_t /*size*/, int /*device*/,
                                                        void* /*stream*/) noexcept {
  tp::installed_pools::release(tp::address_of(pointer));
}

[[gnu::visibility("default")]] void tierpool_torch_record_stream(void* pointer, void* stream) noexcept {
  tp::installed_pools::record_stream(tp::address_of(pointer), handle_of(stream));
}

/// The start and the size of the allocation that begins at `pointer`.
[[gnu::visibility("default")]] void* tierpool_torch_base_allocation(void* pointer, std::size_t* size) noexcept {
  if (size != nullptr) {
    *size = tp::installed_pools::size_of(tp::address_of(pointer));
  }
  return pointer;
}

/// `torch.cuda.empty_cache()`.
[[gnu::visibility("default")]] void tierpool_torch_trim() noexcept { tp::installed_pools::trim(); }

/// `torch.cuda.set_per_process_memory_fraction()`: throws, which PyTorch turns into an error of Python.
[[gnu::visibility("default")]] void tierpool_torch_memory_fraction(double fraction, int device) {
  tp::installed_pools::require_whole_device(fraction, device);
}

}  // extern "C"

namespace tierpool::bindings {

void bind_torch_allocator(py::module_& module) {
  module.def(
      "install_pool", [](int device, const PoolPointer& pool) { installed_pools::install(device, pool); },
      py::arg("device"), py::arg("pool").none(true),
      "Let a pool serve the allocator hooks of a device ordinal, or none any more.\n\n"
      "The pool is kept for the life of the process: memory of it may come back at any time.");
  py::dict addresses;
  const auto add = [&addresses](const char* name, auto* function) {
    addresses[name] = reinterpret_cast<std::uintptr_t>(function);
  };
  add("allocate", &tierpool_torch_allocate);
  add("allocate_or_throw", &tierpool_torch_allocate_or_throw);
  add("free", &tierpool_torch_free);
  add("record_stream", &tierpool_torch_record_stream);
  add("base_allocation", &tierpool_torch_base_allocation);
  add("trim", &tierpool_torch_trim);
  add("memory_fraction", &tierpool_torch_memory_fraction);
  module.attr("torch_allocator_addresses") = addresses;
}

}  // namespace tierpool::bindings
