#pragma once

#include <memory>
#include <span>

#include "bindings.hpp"
#include "buffer_type.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/pool/buffer.hpp"

namespace tierpool::bindings {

// The end of memory may have to wait for the device, and what that does may need Python: nobody waits with the GIL
// held.

/// Buffer::release() on any thread, with the GIL or without it, also after Python.
void give_back_slowly(Buffer& memory) noexcept;

/// The same; what a magazine takes costs nothing more.
inline void give_back(Buffer& memory) noexcept {
  if (!memory.release_at_once()) [[unlikely]] {
    give_back_slowly(memory);
  }
}

/// Buffer::release() behind the work of a stream, with the GIL.
void give_back(Buffer& memory, StreamHandle stream) noexcept;

/// BufferPool::release() on any thread, with the GIL or without it, also after Python.
ReleaseOutcome end_lease(BufferPool& pool, const Lease& lease) noexcept;
/// BufferPool::release_batch() likewise.
void end_leases(BufferPool& pool, std::span<const Lease> leases) noexcept;
/// BufferPool::reset(), with the GIL.
[[nodiscard]] ResetOutcome end_all_leases(BufferPool& pool, std::shared_ptr<CompletionEvent> after);

/// A pointer whose last copy lets the GIL go for as long as the pool's end takes.
[[nodiscard]] PoolPointer ending_without_gil(PoolPointer pool);
[[nodiscard]] std::shared_ptr<BufferPool> ending_without_gil(std::shared_ptr<BufferPool> pool);

}  // namespace tierpool::bindings
