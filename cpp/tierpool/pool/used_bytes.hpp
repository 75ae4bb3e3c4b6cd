#pragma once

#include <atomic>
#include <cstdint>

namespace tierpool {

/// Bytes taken from somewhere, and the most they ever were since reset. Thread-safe.
class UsedBytes {
 public:
  void add(std::uint64_t bytes) noexcept;
  void subtract(std::uint64_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  /// Never more than peak() read afterwards.
  [[nodiscard]] std::uint64_t used() noexcept;
  /// May fall below used() while reset_peak() runs.
  [[nodiscard]] std::uint64_t peak() const noexcept { return peak_.load(std::memory_order_relaxed); }
  void reset_peak() noexcept;

 private:
  void raise_peak(std::uint64_t used) noexcept;

  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> peak_{0};
};

}  // namespace tierpool
