#pragma once

#include <cstdint>

#include "bindings.hpp"
#include "tierpool/pool/buffer.hpp"

namespace tierpool::bindings {

class SharedBuffer;

/// The Python object `tierpool.Buffer`: a handle on one allocation. All fields are guarded by the GIL.
///
/// The memory goes back to the pool when the handle is given up (released, left, or dead) and nothing that can see the
/// memory is left: no view, no DLPack export, and no bare address handed out by `__array_interface__`, which only the
/// object's death ends.
struct BufferObject {
  PyObject_HEAD PyObject* weak_references;
  Buffer memory;         ///< empty once it has gone, or moved to `shared`
  SharedBuffer* shared;  ///< made by the first DLPack export
  std::uint64_t address;
  std::uint64_t nbytes;
  Py_ssize_t view_count;  ///< live views by the buffer protocol
  std::uint32_t heap_index;
  bool given_up;
  bool address_handed_out;  ///< `__array_interface__` was read
};

/// A new `tierpool.Buffer` that owns `memory`. Throws error_already_set; `memory` is then unchanged.
[[nodiscard]] py::object make_buffer(Buffer&& memory);

[[nodiscard]] bool is_buffer(py::handle object) noexcept;
/// The object behind a handle that is_buffer().
[[nodiscard]] BufferObject& buffer_object(py::handle buffer) noexcept;

/// The memory behind a buffer that was not given up.
[[nodiscard]] const Buffer& memory_of(const BufferObject& buffer) noexcept;

/// Throws ValueError when the buffer was given up, BufferError when something still sees its memory.
void check_releasable(const BufferObject& buffer);
/// Gives the handle up; the memory goes back now or with the last that sees it.
void give_up(BufferObject& buffer) noexcept;
/// Throws ValueError when the buffer was given up.
void check_not_given_up(const BufferObject& buffer);
/// Throws BufferError when the processor cannot reach the memory.
void check_host_accessible(const BufferObject& buffer);

}  // namespace tierpool::bindings
