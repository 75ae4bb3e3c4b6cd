#include "memory_end.hpp"

#include <utility>

#include "gil.hpp"

namespace tierpool::bindings {
namespace {

void give_back_left(BufferPool& pool, bool left) noexcept {
  if (left) {
    const WithoutGilIfHeld without_gil;
    pool.give_back_free();
  }
}

template <typename Pool>
std::shared_ptr<Pool> with_end(std::shared_ptr<Pool> pool) {
  Pool* const address = pool.get();
  return {address, [owned = std::move(pool)](Pool* /*pool*/) mutable {
            const WithoutGilIfHeld without_gil;
            owned.reset();
          }};
}

}  // namespace

void give_back_slowly(Buffer& memory) noexcept {
  if (memory.may_wait()) {
    const WithoutGilIfHeld without_gil;
    memory.release();
  } else {
    memory.release();
  }
}

void give_back(Buffer& memory, StreamHandle stream) noexcept {
  if (memory.may_wait()) {
    const WithoutGil without_gil;
    memory.release(stream);
  } else {
    memory.release(stream);
  }
}

ReleaseOutcome end_lease(BufferPool& pool, const Lease& lease) noexcept {
  bool left = false;
  const ReleaseOutcome outcome = pool.release(lease, left);
  give_back_left(pool, left);
  return outcome;
}

void end_leases(BufferPool& pool, std::span<const Lease> leases) noexcept {
  bool left = false;
  pool.release_batch(leases, left);
  give_back_left(pool, left);
}

ResetOutcome end_all_leases(BufferPool& pool, std::shared_ptr<CompletionEvent> after) {
  bool left = false;
  const ResetOutcome outcome = pool.reset(std::move(after), left);
  give_back_left(pool, left);
  return outcome;
}

PoolPointer ending_without_gil(PoolPointer pool) { return with_end(std::move(pool)); }

std::shared_ptr<BufferPool> ending_without_gil(std::shared_ptr<BufferPool> pool) { return with_end(std::move(pool)); }

}  // namespace tierpool::bindings
