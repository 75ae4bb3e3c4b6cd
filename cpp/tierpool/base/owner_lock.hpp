#pragma once

#include <atomic>
#include <mutex>

namespace tierpool {

/// A lock that one thread, the owner, takes all the time and others take rarely.
///
/// The owner pays two plain stores and a load; whoever else wants the lock pays for the ordering with a system call
/// that interrupts every running thread of the process (Linux membarrier). Where that is missing, the owner pays for a
/// sequentially consistent exchange. Not recursive. The idea is that of biased locks: Dice, Moir and Scherer, "Quickly
/// Reacquirable Locks", 2003.
class OwnerLock {
 public:
  /// Whether try_lock_fast() may be used.
  [[nodiscard]] static bool is_fast() noexcept { return kOrderedByExchange || kOwnersAreInterruptible; }

  /// False while someone else claims the lock. Like all with "owner", only ever called by the owning thread.
  [[nodiscard]] bool try_lock_as_owner_fast() noexcept { return try_lock_as_owner<kOrderedByExchange>(); }
  void lock_as_owner() noexcept {
    while (!(kOwnersAreInterruptible ? try_lock_as_owner<false>() : try_lock_as_owner<true>())) [[unlikely]] {
        wait_for_claim();
      }
  }
  void unlock_as_owner() noexcept { owner_inside_.store(false, std::memory_order_release); }

  /// Claims the lock for any other thread, or for the owner itself while it is not inside.
  void claim() noexcept;
  void unclaim() noexcept;
  /// As claim() for many locks, for the price of one system call: first announce() on each, then interrupt_owners(),
  /// then settle() on each.
  void announce() noexcept;
  void settle() noexcept;
  static void interrupt_owners() noexcept;

 private:
#if defined(__SANITIZE_THREAD__)  // ThreadSanitizer does not see what the system call orders
  static constexpr bool kOrderedByExchange = true;
#else
  static constexpr bool kOrderedByExchange = false;
#endif

  template <bool by_exchange>
  [[nodiscard]] bool try_lock_as_owner() noexcept {
    if constexpr (by_exchange) {
      owner_inside_.exchange(true, std::memory_order_seq_cst);
    } else {
      owner_inside_.store(true, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    if (!claimed_.load(std::memory_order_seq_cst)) [[likely]] {
      return true;
    }
    owner_inside_.store(false, std::memory_order_release);
    return false;
  }
  void wait_for_claim() noexcept;

  static const bool kOwnersAreInterruptible;

  std::atomic<bool> owner_inside_{false};
  std::atomic<bool> claimed_{false};
  std::mutex claimers_;
};

}  // namespace tierpool
