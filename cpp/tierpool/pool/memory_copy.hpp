#pragma once

#include <cstdint>
#include <optional>

#include "tierpool/base/readable_file.hpp"
#include "tierpool/device/stream.hpp"
#include "tierpool/pool/memory_pool.hpp"
#include "tierpool/pool/staging_ring.hpp"

namespace tierpool {

/// One end of a copy: memory of a pool, pageable memory of the processor or, as a source, a file.
struct CopyEnd {
  std::uint64_t address = 0;   ///< in a file: the offset
  MemoryPool* pool = nullptr;  ///< the lane it was allocated from, whose stream it follows; null: pageable, or a file
  const ReadableFile* file = nullptr;

  [[nodiscard]] bool is_on_host() const noexcept { return pool == nullptr || pool->device().host_accessible(); }
  [[nodiscard]] DeviceStreams* streams() const noexcept { return pool == nullptr ? nullptr : pool->device().streams(); }
};

/// Copies between any two of device, pinned and pageable memory, and from a file to any of them. Ranges on one device
/// must not overlap.
///
/// Without a stream the copy follows the work of both memories' own streams and is done on return. With one it is
/// enqueued there and this returns early. Pageable memory and files go through pinned staging then: as a source they
/// have been read on return, as a destination written. A file is read by several threads, and into memory of the host
/// without a stream only.
///
/// May be called from any thread; blocks. Throws DeviceError, also for a stream where neither end has any, ReadError,
/// and what the making of the staging memory throws.
void copy_memory(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes,
                 std::optional<StreamHandle> stream, FindStaging find_staging = staging_ring_of);

}  // namespace tierpool
