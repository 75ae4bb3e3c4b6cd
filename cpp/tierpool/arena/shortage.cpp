#include "tierpool/arena/shortage.hpp"

#include <string>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

std::string describe(std::uint64_t bytes) {
  return std::to_string(bytes) + " bytes (" + format_memory_size(bytes) + ")";
}

std::string reason_of(const Shortage& shortage, const BufferPoolConfig& config, const MemoryPool& source) {
  const std::string remedy = " with what the buffer pool holds: release buffers, reset() earlier, or raise ";
  switch (shortage.reason) {
    case Shortage::Reason::too_large:
      return ", more than any device has";
    case Shortage::Reason::max_bytes:
      return ", which would exceed max_bytes " + describe(*config.max_bytes) + remedy + "max_bytes";
    case Shortage::Reason::max_buffers:
      return ", which would exceed max_buffers " + std::to_string(*config.max_buffers) + remedy + "max_buffers";
    default:
      return ", and device '" + source.device().name() + "' has no memory left for a buffer of " +
             describe(shortage.class_bytes) + ": release buffers, reset() earlier, or request less";
  }
}

}  // namespace

void throw_shortage(const Shortage& shortage, const BufferPoolConfig& config, const MemoryPool& source,
                    std::uint64_t free_bytes) {
  std::string what = describe(shortage.requested_bytes);
  if (shortage.request_count != 1) {
    what += " in " + std::to_string(shortage.request_count) + " buffers";
  }
  if (shortage.reason == Shortage::Reason::closed) {
    source.require_device("allocate " + what);
    throw PoolClosedError("cannot allocate " + what + ": the buffer pool is closed; create a new BufferPool");
  }
  // A bare device has no heaps to speak of; a pool of heaps knows best what it lacks.
  const bool is_bare_device = !source.config().enabled;
  if (shortage.reason == Shortage::Reason::source &&
      (!is_bare_device || shortage.source_outcome != AllocationOutcome::out_of_memory)) {
    source.throw_failure(shortage.source_outcome, shortage.class_bytes);
  }
  const OutOfMemoryError::Details details{shortage.requested_bytes, 0, free_bytes, 0.0};
  throw OutOfMemoryError("out of memory: requested " + what + reason_of(shortage, config, source), details);
}

}  // namespace tierpool
