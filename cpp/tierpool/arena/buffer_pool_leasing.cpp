#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/logging.hpp"

// How a buffer pool leases. A request that finds a free buffer is served in one step under the lock. The others take
// three: under the lock free buffers are taken out and room is made for new ones; without it memory is fetched and
// filled; under it again all become leases. What is being prepared is in no epoch, so that a reset, a trim or close()
// in between cannot touch it.

namespace tierpool {
namespace {

std::uint64_t requested_bytes(std::span<const PreparedSlot> prepared) noexcept {
  std::uint64_t bytes = 0;
  for (const PreparedSlot& one : prepared) {
    bytes += one.requested_bytes;
  }
  return bytes;
}

Shortage closed_shortage(std::span<const PreparedSlot> prepared) noexcept {
  return {.reason = Shortage::Reason::closed,
          .request_count = prepared.size(),
          .requested_bytes = requested_bytes(prepared)};
}

}  // namespace

bool BufferPool::try_alloc(std::uint64_t bytes, Lease& lease) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return leases_directly_ && table_.try_lease(bytes, lease);
}

bool BufferPool::try_alloc_exact(std::uint64_t bytes, Lease& lease) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return leases_directly_ && table_.try_lease_exact(bytes, lease);
}

bool BufferPool::try_alloc_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases) noexcept {
  const std::lock_guard<SpinLock> lock(lock_);
  return leases_directly_ && sizes.size() == leases.size() && table_.try_lease_batch(sizes, leases);
}

Lease BufferPool::alloc(std::uint64_t bytes) {
  Lease lease;
  if (!try_alloc(bytes, lease)) {
    PreparedSlot prepared{.requested_bytes = bytes};
    lease_slowly({&prepared, 1}, false, {&lease, 1});
  }
  return lease;
}

Lease BufferPool::alloc_exact(std::uint64_t bytes) {
  Lease lease;
  if (!try_alloc_exact(bytes, lease)) {
    PreparedSlot prepared{.requested_bytes = bytes};
    lease_slowly({&prepared, 1}, true, {&lease, 1});
  }
  return lease;
}

void BufferPool::alloc_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases) {
  if (sizes.size() != leases.size()) {
    throw std::invalid_argument("alloc_batch: " + std::to_string(sizes.size()) + " sizes, but room for " +
                                std::to_string(leases.size()) + " leases");
  }
  if (try_alloc_batch(sizes, leases)) {
    return;
  }
  std::vector<PreparedSlot> prepared(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    prepared[i].requested_bytes = sizes[i];
  }
  lease_slowly(prepared, false, leases);
}

void BufferPool::lease_slowly(std::span<PreparedSlot> prepared, bool exact, std::span<Lease> leases) {
  end_quarantine(false);
  for (;;) {
    Shortage shortage = prepare(prepared, exact);
    if (!shortage) {
      shortage = fetch(prepared);
      if (!shortage) {
        fill(prepared);
        shortage = commit(prepared, leases);
      }
      if (!shortage) {
        return;
      }
      give_back_fetched(prepared);
      undo_prepare(prepared);
    }
    if (!recover(shortage)) {
      throw_shortage(shortage, config_, *source_, free_bytes());
    }
  }
}

Shortage BufferPool::prepare(std::span<PreparedSlot> prepared, bool exact) {
  const auto undo = [&] {
    for (PreparedSlot& one : prepared) {
      table_.undo_prepare(one);
    }
  };
  const std::lock_guard<SpinLock> lock(lock_);
  if (closed_) {
    return closed_shortage(prepared);
  }
  try {
    for (PreparedSlot& one : prepared) {
      if (std::max(one.requested_bytes, table_.held_bytes()) > kMaxRequestBytes) {
        undo();
        return {.reason = Shortage::Reason::too_large, .requested_bytes = one.requested_bytes};
      }
      table_.prepare(one, exact);
    }
  } catch (const std::bad_alloc&) {
    undo();
    throw;
  }
  const Shortage shortage = check_limits(prepared);
  if (shortage) {
    undo();
  }
  return shortage;
}

Shortage BufferPool::check_limits(std::span<const PreparedSlot> prepared) const noexcept {
  Shortage shortage{.request_count = prepared.size(), .requested_bytes = requested_bytes(prepared)};
  const bool any_fresh = std::any_of(prepared.begin(), prepared.end(), [](const auto& one) { return one.fresh; });
  const std::uint64_t held_bytes = table_.held_bytes();
  const std::uint64_t held_count = table_.held_count();
  if (any_fresh && config_.max_bytes && held_bytes > *config_.max_bytes) {
    shortage.reason = Shortage::Reason::max_bytes;
    shortage.missing_bytes = held_bytes - *config_.max_bytes;
    shortage.may_recover = held_bytes - table_.free_bytes() - table_.quarantined_bytes() <= *config_.max_bytes;
  } else if (any_fresh && config_.max_buffers && held_count > *config_.max_buffers) {
    shortage.reason = Shortage::Reason::max_buffers;
    shortage.missing_count = held_count - *config_.max_buffers;
    shortage.may_recover = held_count - table_.free_count() - table_.quarantined_count() <= *config_.max_buffers;
  }
  return shortage;
}

Shortage BufferPool::fetch(std::span<PreparedSlot> prepared) noexcept {
  for (PreparedSlot& one : prepared) {
    if (!one.fresh) {
      continue;
    }
    const AllocationOutcome outcome = source_->serve({.bytes = one.class_bytes}, one.allocation);
    if (outcome != AllocationOutcome::served) {
      one.allocation = Allocation{};
      return {.reason = Shortage::Reason::source,
              .requested_bytes = one.requested_bytes,
              .class_bytes = one.class_bytes,
              .missing_bytes = std::max<std::uint64_t>(one.class_bytes, 1),
              .may_recover = outcome != AllocationOutcome::closed,
              .source_outcome = outcome};
    }
    one.address = one.allocation.address;
  }
  return {};
}

void BufferPool::fill(std::span<const PreparedSlot> prepared) const noexcept {
  if (config_.zero == ZeroPolicy::never) {
    return;
  }
  for (const PreparedSlot& one : prepared) {
    void* const memory = pointer_at(one.address);
    const std::uint64_t dirty_bytes = one.fresh ? one.allocation.dirty_bytes : one.class_bytes;
    if (config_.zero == ZeroPolicy::poison) {
      std::memset(memory, kPoisonByte, one.requested_bytes);
    } else if (config_.zero == ZeroPolicy::always) {
      std::memset(memory, 0, std::min(dirty_bytes, one.requested_bytes));
    } else if (one.fresh) {
      // The whole buffer: a later lease may be longer.
      std::memset(memory, 0, std::min(dirty_bytes, one.class_bytes));
    }
  }
}

Shortage BufferPool::commit(std::span<const PreparedSlot> prepared, std::span<Lease> leases) noexcept {
  std::string warning;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    if (closed_) {
      return closed_shortage(prepared);
    }
    std::uint64_t fresh = 0;
    for (std::size_t i = 0; i < prepared.size(); ++i) {
      table_.lease_prepared(prepared[i], leases[i]);
      fresh += prepared[i].fresh ? 1 : 0;
    }
    if (alarm_.note_fresh(fresh)) {
      warning = growth_message();
    }
  }
  if (!warning.empty()) {
    log(LogLevel::warning, warning);
  }
  return {};
}

void BufferPool::give_back_fetched(std::span<PreparedSlot> prepared) noexcept {
  for (PreparedSlot& one : prepared) {
    const Allocation allocation = std::exchange(one.allocation, Allocation{});
    if (allocation) {
      static_cast<void>(source_->release(allocation));
    }
  }
}

void BufferPool::undo_prepare(std::span<PreparedSlot> prepared) noexcept {
  bool was_closed = false;
  {
    const std::lock_guard<SpinLock> lock(lock_);
    for (PreparedSlot& one : prepared) {
      table_.undo_prepare(one);
    }
    was_closed = closed_;
  }
  if (was_closed) {
    give_back(UINT64_MAX);
  }
}

bool BufferPool::recover(const Shortage& shortage) noexcept {
  if (!shortage.may_recover) {
    return false;
  }
  if (end_quarantine(false)) {
    return true;
  }
  const bool by_count = shortage.reason == Shortage::Reason::max_buffers;
  const GivenBack given_back =
      by_count ? give_back(UINT64_MAX, shortage.missing_count) : give_back(shortage.missing_bytes);
  return given_back.count != 0 || end_quarantine(true);
}

}  // namespace tierpool
