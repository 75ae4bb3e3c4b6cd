#pragma once

#include "buffer_type.hpp"
#include "tierpool/device/stream.hpp"

namespace tierpool::bindings {

/// The stream that a consumer on this thread has to follow to see the buffer's present contents. Where the buffer's own
/// has no name here, this waits for the device first. Throws DeviceError.
[[nodiscard]] StreamHandle stream_to_follow(BufferObject& buffer);

/// Lets work that `stream` is given from now on see the buffer's present contents, and keeps the memory from being used
/// again before that work is done. Throws DeviceError.
void show_to_stream(BufferObject& buffer, StreamHandle stream);

/// Keeps the memory from being used again before the work is done that `stream` has been given by the release. Does
/// nothing where the memory follows that stream anyway, or none. Throws DeviceError for what is no stream of the
/// device.
void keep_for_stream(BufferObject& buffer, StreamHandle stream);

}  // namespace tierpool::bindings
