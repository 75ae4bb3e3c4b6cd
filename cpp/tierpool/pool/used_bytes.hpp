#pragma once

#include <atomic>
#include <cstdint>

namespace tierpool {

/// Bytes taken from somewhere, and the most they ever were since reset. Thread-safe.
class UsedBytes {
 public:
  UsedBytes() = default;
  /// Counted in `whole`, which outlives this object, as well.
  explicit UsedBytes(UsedBytes* whole) noexcept : whole_(whole) {}

  void add(std::uint64_t bytes) noexcept;
  void subtract(std::uint64_t bytes) noexcept;
  /// Never more than peak() read afterwards.
  [[nodiscard]] std::uint64_t used() noexcept;
  /// May fall below used() while reset_peak() runs.
  [[nodiscard]] std::uint64_t peak() const noexcept { return peak_.load(std::memory_order_relaxed); }
  /// Of these alone, not of the whole.
  void reset_peak() noexcept;

 private:
  void raise_peak(std::uint64_t used) noexcept;

  UsedBytes* whole_ = nullptr;
  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> peak_{0};
};

}  // namespace tierpool
