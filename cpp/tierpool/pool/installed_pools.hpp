#pragma once

#include <cstdint>
#include <memory>

#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// The pools that serve programs by bare addresses, one a device ordinal: what allocator hooks of other libraries call,
/// which know of no object. Allocations are arrays. Every call is thread-safe and takes no lock that install() holds;
/// none of those that a hook makes logs, but for a device that does not take its memory back.
///
/// A pool once installed is kept for the life of the process: memory of it may come back at any time.
namespace installed_pools {

inline constexpr int kMaxDevices = 64;

/// Serves a device from now on, in place of the pool before; none for nullptr. Throws std::invalid_argument for an
/// ordinal out of range, std::bad_alloc.
void install(int device, std::shared_ptr<MemoryPool> pool);
/// The pool that serves a device; nullptr when there is none.
[[nodiscard]] MemoryPool* find(int device) noexcept;

/// Memory on a stream's lane, address 0 when there is none; `outcome` tells why.
[[nodiscard]] std::uint64_t allocate(int device, std::uint64_t bytes, StreamHandle stream,
                                     AllocationOutcome& outcome) noexcept;
/// Throws what belongs to an outcome of allocate(): OutOfMemoryError, DeviceError, PoolClosedError, also when no pool
/// is installed.
[[noreturn]] void throw_failure(int device, std::uint64_t bytes, StreamHandle stream, AllocationOutcome outcome);
/// Takes back what any pool that was ever installed handed out, its last use being on the stream it was allocated for
/// or on one that was recorded. False for an address that is not live in one.
bool release(std::uint64_t address) noexcept;
/// See MemoryPool::record_stream().
bool record_stream(std::uint64_t address, StreamHandle stream) noexcept;
/// Gives the memory of whole free granules of every pool that was ever installed back to its device. Returns the bytes.
std::uint64_t trim() noexcept;
/// Throws std::invalid_argument unless `fraction`, of a device's memory, is all of it: a pool has its limit for good.
void require_whole_device(double fraction, int device);
/// Bytes of the live allocation that begins there; 0 when there is none.
[[nodiscard]] std::uint64_t size_of(std::uint64_t address) noexcept;

}  // namespace installed_pools
}  // namespace tierpool
