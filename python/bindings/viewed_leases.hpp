#pragma once

#include <string>

#include "bindings.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool::bindings {

struct LeaseObject;

// The lease objects that had a view: only they know dtype and shape, which a refused reset names. Guarded by the GIL.

/// Lists an object, once.
void list_viewed(LeaseObject& lease) noexcept;
/// Takes a dying object off the list, if it is there.
void unlist_viewed(LeaseObject& lease) noexcept;

/// The live views of a pool: "float32 (4, 8) with 1 view, allocated at decode.py:12 in step". Walks all leases.
[[nodiscard]] std::string describe_views(const BufferPool& pool);

}  // namespace tierpool::bindings
