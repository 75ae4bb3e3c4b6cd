#pragma once

#include <atomic>
#include <cstdint>

namespace tierpool::bindings {

/// Who sees a buffer's memory: its live views, counted, whether its bare address was handed out, which only the
/// object's death ends, and whether the handle was given up. One word, so that each step is decided once also without
/// a GIL: a view is never added to what was given up, and the memory goes back exactly once.
class BufferViews {
 public:
  /// False when the handle was given up: there is nothing to see any more.
  [[nodiscard]] bool add() noexcept {
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    while ((word & kGivenUp) == 0) {
      if (word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }
  /// Whether this was the last that kept the memory of a handle given up.
  [[nodiscard]] bool remove() noexcept { return word_.fetch_sub(1, std::memory_order_acq_rel) == (kGivenUp | 1); }

  /// Whether nothing sees the memory, so that it can go back now. The first call decides; later ones say false.
  [[nodiscard]] bool give_up() noexcept { return word_.fetch_or(kGivenUp, std::memory_order_acq_rel) == 0; }
  [[nodiscard]] bool is_given_up() const noexcept { return (word_.load(std::memory_order_acquire) & kGivenUp) != 0; }

  void hand_out_address() noexcept { word_.fetch_or(kAddressHandedOut, std::memory_order_relaxed); }
  [[nodiscard]] bool address_is_out() const noexcept {
    return (word_.load(std::memory_order_acquire) & kAddressHandedOut) != 0;
  }
  [[nodiscard]] std::uint64_t count() const noexcept {
    return word_.load(std::memory_order_acquire) & (kAddressHandedOut - 1);
  }

 private:
  static constexpr std::uint64_t kGivenUp = std::uint64_t{1} << 63U;
  static constexpr std::uint64_t kAddressHandedOut = std::uint64_t{1} << 62U;

  std::atomic<std::uint64_t> word_{0};
};

}  // namespace tierpool::bindings
