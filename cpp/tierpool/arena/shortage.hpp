#pragma once

#include <cstdint>

#include "tierpool/arena/buffer_pool_config.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// Why a request, or a batch of them, could not be served.
struct Shortage {
  enum class Reason { none, closed, too_large, max_bytes, max_buffers, source };
  Reason reason = Reason::none;
  std::uint64_t request_count = 1;
  std::uint64_t requested_bytes = 0;  ///< of all requests; of the one the source refused
  std::uint64_t class_bytes = 0;      ///< of the buffer the source refused
  std::uint64_t missing_bytes = 0;    ///< what has to go before a second attempt, by its reason in bytes
  std::uint64_t missing_count = 0;    ///< or in buffers
  bool may_recover = false;           ///< whether a second attempt can succeed once free buffers are gone
  AllocationOutcome source_outcome = AllocationOutcome::served;

  explicit operator bool() const noexcept { return reason != Reason::none; }
};

/// Throws OutOfMemoryError that says what to change, or PoolClosedError. There is a shortage.
[[noreturn]] void throw_shortage(const Shortage& shortage, const BufferPoolConfig& config, const MemoryPool& source,
                                 std::uint64_t free_bytes);

}  // namespace tierpool
