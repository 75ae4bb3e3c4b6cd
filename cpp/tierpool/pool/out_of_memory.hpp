#pragma once

#include <cstdint>

#include "tierpool/base/errors.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/pool_config.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// What refused a request.
enum class Shortage {
  memory,
  limit,  ///< max_bytes
  heaps   ///< its stream has none, because the device takes a heap's memory whole
};

/// The error for a request that neither heaps nor device could serve: what was asked, what is free, what to change.
/// Where the device was asked, what it has left itself is told; the pool's free bytes are addresses first of all.
/// What the device last failed for, if for no shortage, is told, too.
[[nodiscard]] OutOfMemoryError out_of_memory_error(std::uint64_t bytes, Shortage shortage, const PoolStatistics& now,
                                                   const PoolConfig& config, const Device& device);

}  // namespace tierpool
