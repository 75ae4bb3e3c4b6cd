#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tierpool {

/// Which calls of something simulated are to fail, and how often each kind was made. Its owner locks it.
template <typename Call, std::size_t kKinds>
class FailureOrders {
 public:
  /// The next `after` calls of this kind work, the `times` calls behind them fail.
  void fail(Call call, std::uint64_t after, std::uint64_t times) noexcept {
    orders_[index_of(call)] = {.after = after, .times = times};
  }
  void recover() noexcept { orders_.fill({}); }

  /// Counts a call. Whether it is to fail.
  [[nodiscard]] bool count_and_fail(Call call) noexcept {
    ++counts_[index_of(call)];
    Order& order = orders_[index_of(call)];
    if (order.after > 0) {
      --order.after;
      return false;
    }
    if (order.times == 0) {
      return false;
    }
    --order.times;
    return true;
  }
  /// Calls of this kind so far, failed ones included.
  [[nodiscard]] std::uint64_t count(Call call) const noexcept { return counts_[index_of(call)]; }

 private:
  struct Order {
    std::uint64_t after = 0;
    std::uint64_t times = 0;
  };

  [[nodiscard]] static std::size_t index_of(Call call) noexcept { return static_cast<std::size_t>(call); }

  std::array<Order, kKinds> orders_{};
  std::array<std::uint64_t, kKinds> counts_{};
};

}  // namespace tierpool
