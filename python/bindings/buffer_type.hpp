#pragma once

#include <cstdint>
#include <memory>

#include "bindings.hpp"
#include "buffer_views.hpp"
#include "tierpool/pool/buffer.hpp"

namespace tierpool::bindings {

class SharedBuffer;

using PoolPointer = std::shared_ptr<MemoryPool>;

/// The Python object `tierpool.Buffer`: a handle on one allocation. Refers to no Python object, so that it can form no
/// cycle and carries no header for the cycle collector. What is not atomic is guarded by the GIL.
///
/// The memory goes back to the pool when the handle is given up (released, left, or dead) and nothing that can see the
/// memory is left: no view, no DLPack export, and no bare address handed out by `__array_interface__`, which only the
/// object's death ends.
struct BufferObject {
  PyObject_HEAD PyObject* weak_references;
  SharedBuffer* shared;  ///< made by the first DLPack export
  BufferViews views;
  std::uint64_t address;
  std::uint64_t nbytes;
  std::uint32_t heap_index;
  Buffer memory;  ///< empty once it has gone, or moved to `shared`
};

/// A new `tierpool.Buffer` that owns a live allocation. Null with a Python error set when there is no memory for the
/// object: the allocation is then still the caller's.
[[nodiscard]] PyObject* new_buffer(MemoryPool& pool, const Allocation& allocation) noexcept;

[[nodiscard]] bool is_buffer(py::handle object) noexcept;
/// The object behind a handle that is_buffer().
[[nodiscard]] BufferObject& buffer_object(py::handle buffer) noexcept;

/// The memory behind a buffer that was not given up.
[[nodiscard]] const Buffer& memory_of(const BufferObject& buffer) noexcept;
[[nodiscard]] Buffer& memory_of(BufferObject& buffer) noexcept;

/// One more that sees the memory, until end_view(). False when the handle was given up.
[[nodiscard]] bool begin_view(BufferObject& buffer) noexcept;
void end_view(BufferObject& buffer) noexcept;

/// Throws ValueError when the buffer was given up, BufferError when something still sees its memory.
void check_releasable(const BufferObject& buffer);
/// Gives the handle up; the memory goes back now or with the last that sees it.
void give_up(BufferObject& buffer) noexcept;
/// As give_up() for a buffer that is releasable, behind the work of `stream`; None as give_up(). Throws TypeError,
/// ValueError, DeviceError for what is no stream of its device; the buffer is then as it was.
void give_up(BufferObject& buffer, py::handle stream);
/// Throws ValueError when the buffer was given up.
void check_not_given_up(const BufferObject& buffer);
/// Throws BufferError when the processor cannot reach the memory.
void check_host_accessible(const BufferObject& buffer);

}  // namespace tierpool::bindings
