#pragma once

#include "bindings.hpp"

namespace tierpool::bindings {

/// Puts the calls that are made once a lease or a step onto the class that was bound for BufferPool, as method
/// descriptors: `alloc`, `alloc_exact`, `alloc_batch`, `release`, `reset`.
void add_arena_calls(const py::handle& type);

}  // namespace tierpool::bindings
