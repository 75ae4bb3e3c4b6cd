#include "arena_arrays.hpp"

#include <algorithm>
#include <exception>

#include "bindings.hpp"
#include "call_origin.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool::bindings {

Lease ArenaArrays::lease_viewed(std::uint64_t bytes) {
  Lease lease = pool_->alloc(bytes);
  while (!pool_->add_view(lease)) {  // another thread's reset came in between
    lease = pool_->alloc(bytes);
  }
  return lease;
}

ArrayBlock ArenaArrays::take(std::uint64_t bytes) noexcept {
  const py::error_scope keep_pending_error;
  Lease lease;
  try {
    lease = lease_viewed(bytes);
    if (pool_->config().track_origins) {
      pool_->set_origin(lease, call_origin_outside("numpy"));
    }
    Place& place = places_[lease.address];
    place.lease = lease;
    ++place.array_count;
    const bool is_zero = pool_->config().zero == ZeroPolicy::always;
    return {lease.address, lease.requested_bytes, is_zero ? 0 : lease.requested_bytes};
  } catch (const PoolClosedError&) {
    log(LogLevel::error, "BufferPool: NumPy asked a closed buffer pool for memory");
  } catch (const std::exception&) {
    // No memory, for the array or for what is noted of it.
  }
  if (lease) {
    pool_->remove_view(lease);
    static_cast<void>(pool_->release(lease));
  }
  return {};
}

ArrayBlock ArenaArrays::find(std::uint64_t address) noexcept {
  const auto found = places_.find(address);
  if (found == places_.end()) {
    return {};
  }
  const std::uint64_t bytes = found->second.lease.requested_bytes;
  return {address, bytes, bytes};
}

bool ArenaArrays::release(std::uint64_t address) noexcept {
  const auto found = places_.find(address);
  if (found == places_.end()) {
    return false;
  }
  if (--found->second.array_count == 0) {
    const Lease lease = found->second.lease;
    places_.erase(found);
    pool_->remove_view(lease);
    static_cast<void>(pool_->release(lease));
  }
  return true;
}

}  // namespace tierpool::bindings
