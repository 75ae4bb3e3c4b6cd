#include "buffer_streams.hpp"

#include "gil.hpp"
#include "held_buffer.hpp"

namespace tierpool::bindings {

namespace {

void order_after_own(MemoryPool& pool, StreamHandle later) {
  if (pool.stream_here() == pool.stream().handle) {
    pool.order_after_own(later);
    return;
  }
  const WithoutGil without_gil;  // it waits for the device
  pool.order_after_own(later);
}

}  // namespace

StreamHandle stream_to_follow(BufferObject& buffer) {
  const HeldBuffer held(buffer);
  MemoryPool& pool = memory_of(buffer).pool();
  const StreamHandle stream = pool.stream_here();
  order_after_own(pool, stream);
  return stream;
}

void show_to_stream(BufferObject& buffer, StreamHandle stream) {
  const HeldBuffer held(buffer);
  order_after_own(memory_of(buffer).pool(), stream);
  memory_of(buffer).record_stream(stream);
}

void keep_for_stream(BufferObject& buffer, StreamHandle stream) {
  MemoryPool& pool = memory_of(buffer).pool();
  if (pool.device().streams() != nullptr) {
    pool.require_stream(stream);
    memory_of(buffer).record_stream(stream);
  }
}

}  // namespace tierpool::bindings
