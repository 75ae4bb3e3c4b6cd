#include "buffer_streams.hpp"

#include "tierpool/device/stream_order.hpp"

namespace tierpool::bindings {

StreamHandle own_stream(const BufferObject& buffer) noexcept {
  const StreamKey& stream = memory_of(buffer).pool().stream();
  return stream == kHostOrder ? kDefaultStream : stream.handle;
}

void keep_for_stream(BufferObject& buffer, StreamHandle stream) {
  if (memory_of(buffer).pool().device().streams() != nullptr) {
    memory_of(buffer).record_stream(stream);
  }
}

void show_to_stream(BufferObject& buffer, StreamHandle stream) {
  DeviceStreams* streams = memory_of(buffer).pool().device().streams();
  const StreamHandle own = own_stream(buffer);
  if (streams == nullptr || streams->stream_id(own) == streams->stream_id(stream)) {
    return;
  }
  order_after(*streams, stream, own);
  memory_of(buffer).record_stream(stream);
}

}  // namespace tierpool::bindings
