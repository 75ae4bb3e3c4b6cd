#include "tierpool/base/owner_lock.hpp"

#include <sched.h>

#include "tierpool/base/thread_interrupt.hpp"

namespace tierpool {

const bool OwnerLock::kOwnersAreInterruptible = !kOrderedByExchange && enable_thread_interrupt();

void OwnerLock::interrupt_owners() noexcept {
  if (kOwnersAreInterruptible) {
    interrupt_threads();
  }
}

void OwnerLock::announce() noexcept {
  claimers_.lock();
  claimed_.store(true, std::memory_order_seq_cst);
}

void OwnerLock::settle() noexcept {
  // Acquire: what the owner did inside is seen from here on. The owner never blocks inside, so this is short.
  while (owner_inside_.load(std::memory_order_seq_cst)) {
    sched_yield();
  }
}

void OwnerLock::claim() noexcept {
  announce();
  interrupt_owners();
  settle();
}

void OwnerLock::unclaim() noexcept {
  claimed_.store(false, std::memory_order_release);
  claimers_.unlock();
}

void OwnerLock::wait_for_claim() noexcept {
  // Sleeps as long as someone holds the claim.
  const std::lock_guard<std::mutex> claim_is_over(claimers_);
}

}  // namespace tierpool
