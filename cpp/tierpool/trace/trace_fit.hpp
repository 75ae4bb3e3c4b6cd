#pragma once

#include <cstdint>

#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/trace/trace.hpp"

namespace tierpool {

/// Whether one heap of that capacity serves every allocation of the trace.
[[nodiscard]] bool serves_trace(const Trace& trace, std::uint64_t capacity_bytes, Placement placement);

/// The smallest capacity of a single heap that serves the whole trace, in bytes: whole 256-byte units, found by
/// bisection to 0.1 % of the result. The capacity returned has served the trace in full; as no placement is monotonic,
/// a smaller one outside the bisection's path may do so too. Looks at the block allocator alone, needs no memory.
/// Throws std::bad_alloc.
[[nodiscard]] std::uint64_t fit_capacity_bytes(const Trace& trace, Placement placement);

}  // namespace tierpool
