#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace tierpool {

/// A lock for sections of nanoseconds that never block, allocate from a device or call foreign code: half the price of
/// std::mutex once a process has threads. Whoever finds it taken spins, then yields, then sleeps, so that a holder of
/// lower priority gets the processor. May be unlocked in the child of a fork.
class SpinLock {
 public:
  void lock() noexcept {
    if (taken_.exchange(true, std::memory_order_acquire)) {
      wait_and_lock();
    }
  }
  void unlock() noexcept { taken_.store(false, std::memory_order_release); }

 private:
  void wait_and_lock() noexcept {
    constexpr int kSpins = 64;
    constexpr int kYields = 256;
    for (int round = 0;; ++round) {
      if (!taken_.load(std::memory_order_relaxed) && !taken_.exchange(true, std::memory_order_acquire)) {
        return;
      }
      if (round >= kSpins + kYields) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      } else if (round >= kSpins) {
        std::this_thread::yield();
      }
    }
  }

  std::atomic<bool> taken_{false};
};

}  // namespace tierpool
