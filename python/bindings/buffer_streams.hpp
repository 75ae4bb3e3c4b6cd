#pragma once

#include "buffer_type.hpp"
#include "tierpool/device/stream.hpp"

namespace tierpool::bindings {

/// The stream that the buffer's memory was allocated for.
[[nodiscard]] StreamHandle own_stream(const BufferObject& buffer) noexcept;

/// Lets work that `stream` is given from now on see the buffer's present contents, and keeps the memory from being used
/// again before that work is done. Throws DeviceError.
void show_to_stream(BufferObject& buffer, StreamHandle stream);

/// Keeps the memory from being used again before the work is done that `stream` has been given by the release. Does
/// nothing where the memory follows that stream anyway.
void keep_for_stream(BufferObject& buffer, StreamHandle stream);

}  // namespace tierpool::bindings
