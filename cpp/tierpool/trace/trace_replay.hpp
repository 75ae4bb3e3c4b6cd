#pragma once

#include <cstdint>

#include "tierpool/device/device.hpp"
#include "tierpool/pool/memory_pool.hpp"
#include "tierpool/trace/trace.hpp"

namespace tierpool {

/// Runs the events of a trace against a pool, in order, on the calling thread. Returns the nanoseconds they took; what
/// the trace leaves live is released after that. Hits and fallbacks are in the pool's statistics.
/// With `write`, every buffer is written in full as soon as it is allocated.
/// Throws ConfigError when `write` asks for memory the processor cannot reach, OutOfMemoryError, PoolClosedError;
/// nothing stays allocated then either.
[[nodiscard]] std::uint64_t replay(const Trace& trace, MemoryPool& pool, bool write);

/// The same against the device's own allocation, the one a pool falls back to, with the pool's alignment.
[[nodiscard]] std::uint64_t replay_direct(const Trace& trace, Device& device, bool write);

/// The same against the C library's malloc, with malloc's alignment.
[[nodiscard]] std::uint64_t replay_malloc(const Trace& trace, bool write);

}  // namespace tierpool
