#pragma once

#include "bindings.hpp"
#include "buffer_type.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::bindings {

/// Puts the calls that are made once a buffer (`allocate`, `try_allocate`, `allocate_batch`, `release`) onto the class
/// bound for MemoryPool or a subclass of it, as method descriptors: subclasses inherit them with nothing in between.
void add_pool_calls(py::handle type);

/// A `tierpool.Buffer` for a request. Lets the GIL go only for what blocks. Throws as MemoryPool::allocate().
[[nodiscard]] py::object allocate_request(const PoolPointer& pool, AllocationRequest request);

/// The releasable buffer of this pool behind `object`, which is_buffer(). Throws InvalidHandleError for another pool's.
[[nodiscard]] BufferObject& own_buffer(const MemoryPool& pool, py::handle object);

}  // namespace tierpool::bindings
