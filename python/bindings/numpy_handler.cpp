#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "arena_arrays.hpp"
#include "arguments.hpp"
#include "array_memory.hpp"
#include "bindings.hpp"
#include "pool_arrays.hpp"
#include "python_log_sink.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::bindings {
namespace {

// NumPy's C structs for a data allocator, as NEP 49 gives them (https://numpy.org/neps/nep-0049.html).
struct DataMemAllocator {
  void* ctx;
  void* (*malloc)(void* ctx, std::size_t bytes);
  void* (*calloc)(void* ctx, std::size_t count, std::size_t item_bytes);
  void* (*realloc)(void* ctx, void* pointer, std::size_t bytes);
  void (*free)(void* ctx, void* pointer, std::size_t bytes);
};
struct DataMemHandler {
  char name[127];
  std::uint8_t version;
  DataMemAllocator allocator;
};

constexpr const char* kCapsuleName = "mem_handler";
// Slots of NumPy's C API table, fixed since 1.22.
constexpr std::size_t kSetHandlerSlot = 304;
constexpr std::size_t kDefaultHandlerSlot = 306;

/// A pool as a NumPy allocator. Its capsule, and so the pool, lives as long as any array that was born with it.
struct PoolHandler {
  DataMemHandler numpy{};
  std::unique_ptr<ArrayMemory> memory;
  std::uint64_t min_bytes = 0;
  DataMemAllocator small{};  // NumPy's own, for requests below min_bytes
};

PoolHandler& handler_of(void* ctx) noexcept { return *static_cast<PoolHandler*>(ctx); }

void* pointer_to(const ArrayBlock& block) noexcept { return pointer_at(block.address); }

void* numpy_malloc(void* ctx, std::size_t bytes) {
  PoolHandler& handler = handler_of(ctx);
  return bytes < handler.min_bytes ? handler.small.malloc(handler.small.ctx, bytes)
                                   : pointer_to(handler.memory->take(bytes));
}

void* numpy_calloc(void* ctx, std::size_t count, std::size_t item_bytes) {
  PoolHandler& handler = handler_of(ctx);
  if (item_bytes != 0 && count > std::numeric_limits<std::size_t>::max() / item_bytes) {
    return nullptr;
  }
  const std::size_t bytes = count * item_bytes;
  if (bytes < handler.min_bytes) {
    return handler.small.calloc(handler.small.ctx, count, item_bytes);
  }
  const ArrayBlock block = handler.memory->take(bytes);
  if (block) {
    std::memset(pointer_to(block), 0, std::min<std::uint64_t>(bytes, block.dirty_bytes));
  }
  return pointer_to(block);
}

void numpy_free(void* ctx, void* pointer, std::size_t bytes) {
  PoolHandler& handler = handler_of(ctx);
  if (pointer != nullptr && !handler.memory->release(address_of(pointer))) {
    handler.small.free(handler.small.ctx, pointer, bytes);
  }
}

void* move_from_pool(PoolHandler& handler, const ArrayBlock& old, std::size_t bytes) noexcept {
  void* moved = bytes < handler.min_bytes ? handler.small.malloc(handler.small.ctx, bytes)
                                          : pointer_to(handler.memory->take(bytes));
  if (moved != nullptr) {
    std::memcpy(moved, pointer_to(old), std::min<std::uint64_t>(bytes, old.usable_bytes));
    static_cast<void>(handler.memory->release(old.address));
  }
  return moved;
}

// NumPy does not say how large a small block was, only that it is below the threshold: its own realloc stretches the
// block to that, so that as much can be copied.
void* move_to_pool(PoolHandler& handler, void* pointer, std::size_t bytes) noexcept {
  const ArrayBlock block = handler.memory->take(bytes);
  if (!block) {
    return nullptr;
  }
  void* stretched = handler.small.realloc(handler.small.ctx, pointer, handler.min_bytes);
  if (stretched == nullptr) {
    static_cast<void>(handler.memory->release(block.address));
    return nullptr;
  }
  std::memcpy(pointer_to(block), stretched, handler.min_bytes);
  handler.small.free(handler.small.ctx, stretched, handler.min_bytes);
  return pointer_to(block);
}

void* numpy_realloc(void* ctx, void* pointer, std::size_t bytes) {
  PoolHandler& handler = handler_of(ctx);
  if (pointer == nullptr) {
    return numpy_malloc(ctx, bytes);
  }
  const ArrayBlock old = handler.memory->find(address_of(pointer));
  if (!old) {
    return bytes < handler.min_bytes ? handler.small.realloc(handler.small.ctx, pointer, bytes)
                                     : move_to_pool(handler, pointer, bytes);
  }
  const bool fits = bytes <= old.usable_bytes && bytes >= handler.min_bytes;
  if (fits && (bytes >= old.usable_bytes / 2 || handler.memory->is_closed())) {
    return pointer;
  }
  void* moved = move_from_pool(handler, old, bytes);
  return moved == nullptr && fits ? pointer : moved;
}

void** load_numpy_api() {
  py::module_ multiarray;
  try {
    multiarray = py::module_::import("numpy._core._multiarray_umath");
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ModuleNotFoundError)) {
      throw;
    }
    multiarray = py::module_::import("numpy.core._multiarray_umath");  // before NumPy 2
  }
  const py::object table = multiarray.attr("_ARRAY_API");
  return static_cast<void**>(PyCapsule_GetPointer(table.ptr(), nullptr));
}

// Loaded once, also because nothing can be imported any more when the last blocks end. Guarded by the GIL.
void** numpy_api() {
  static void** table = nullptr;
  if (table == nullptr) {
    table = load_numpy_api();
  }
  return table;
}

void destroy_handler(PyObject* capsule) { delete static_cast<PoolHandler*>(PyCapsule_GetContext(capsule)); }

py::object make_handler(std::unique_ptr<ArrayMemory> memory, const Device& device, py::handle min_bytes) {
  if (!device.host_accessible()) {
    throw py::value_error("NumPy needs memory the processor can reach, which device '" + device.name() +
                          "' is not; build the pool with device='host'");
  }
  PyObject* default_capsule = *static_cast<PyObject**>(numpy_api()[kDefaultHandlerSlot]);
  const auto* numpy_default = static_cast<DataMemHandler*>(PyCapsule_GetPointer(default_capsule, kCapsuleName));
  auto handler = std::make_unique<PoolHandler>();
  std::strncpy(handler->numpy.name, "tierpool", sizeof(handler->numpy.name) - 1);
  handler->numpy.version = 1;
  handler->numpy.allocator = {handler.get(), numpy_malloc, numpy_calloc, numpy_realloc, numpy_free};
  handler->memory = std::move(memory);
  handler->min_bytes = parse_bytes(min_bytes, "min_bytes");
  handler->small = numpy_default->allocator;
  auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(&handler->numpy, kCapsuleName, destroy_handler));
  if (!capsule || PyCapsule_SetContext(capsule.ptr(), handler.get()) != 0) {
    throw py::error_already_set();
  }
  static_cast<void>(handler.release());  // the capsule's now
  return capsule;
}

py::object make_pool_handler(const std::shared_ptr<MemoryPool>& pool, py::handle min_bytes) {
  return make_handler(std::make_unique<PoolArrays>(pool), pool->device(), min_bytes);
}

py::object make_arena_handler(const std::shared_ptr<BufferPool>& pool, py::handle min_bytes) {
  return make_handler(std::make_unique<ArenaArrays>(pool), pool->source()->device(), min_bytes);
}

py::object set_handler(const py::object& capsule) {
  const LogDelivery logs;  // also of what NumPy's allocator queued while the last handler was in place
  using SetHandler = PyObject* (*)(PyObject*);
  const auto set = reinterpret_cast<SetHandler>(numpy_api()[kSetHandlerSlot]);
  auto previous = py::reinterpret_steal<py::object>(set(capsule.is_none() ? nullptr : capsule.ptr()));
  if (!previous) {
    throw py::error_already_set();
  }
  return previous;
}

}  // namespace

void bind_numpy_handler(py::module_& module) {
  const char* doc =
      "A NEP 49 handler capsule over a pool or an arena. Raises ValueError when the processor cannot reach its memory.";
  module.def("make_numpy_handler", &make_pool_handler, py::arg("pool"), py::arg("min_bytes"), doc);
  module.def("make_numpy_handler", &make_arena_handler, py::arg("pool"), py::arg("min_bytes"), doc);
  module.def("set_numpy_handler", &set_handler, py::arg("handler"),
             "Make a handler capsule the current context's and return the one it replaces.");
}

}  // namespace tierpool::bindings
