#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace tierpool {

/// A hard limit on bytes in use; no limit costs nothing. Thread-safe.
class ByteLimit {
 public:
  explicit ByteLimit(std::optional<std::uint64_t> max_bytes) noexcept : max_bytes_(max_bytes) {}

  /// False when `bytes` more would exceed the limit; nothing changes then.
  [[nodiscard]] bool take(std::uint64_t bytes) noexcept {
    if (!max_bytes_) [[likely]] {
      return true;
    }
    std::uint64_t current = used_.load(std::memory_order_relaxed);
    do {
      if (bytes > *max_bytes_ || current > *max_bytes_ - bytes) {
        return false;
      }
    } while (!used_.compare_exchange_weak(current, current + bytes, std::memory_order_relaxed));
    return true;
  }
  /// UINT64_MAX when there is no limit.
  [[nodiscard]] std::uint64_t max_bytes() const noexcept { return max_bytes_.value_or(UINT64_MAX); }
  void give_back(std::uint64_t bytes) noexcept {
    if (max_bytes_) {
      used_.fetch_sub(bytes, std::memory_order_relaxed);
    }
  }

 private:
  const std::optional<std::uint64_t> max_bytes_;
  std::atomic<std::uint64_t> used_{0};
};

}  // namespace tierpool
