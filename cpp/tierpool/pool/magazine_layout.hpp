#pragma once

#include <cstdint>

#include "tierpool/pool/size_class.hpp"

namespace tierpool {

/// How the magazines of a pool are numbered: one a size class up to a limit, then some for exact sizes above it, which
/// sizes share by hash. A value; the same for every thread.
class MagazineLayout {
 public:
  /// No class is larger than `exact_above_bytes`.
  explicit MagazineLayout(std::uint64_t exact_above_bytes) noexcept : class_units_(exact_above_bytes / kUnitBytes) {
    // Down to the end of a class, so that every class is either rounded to or not there.
    while (class_units_ != 0 && size_class_of(class_units_).units != class_units_) {
      --class_units_;
    }
    class_count_ = class_units_ == 0 ? 0 : static_cast<std::uint32_t>(size_class_of(class_units_).index + 1);
    count_ = class_count_ + kExactSlots;
  }

  /// Whether a request is too large for the classes.
  [[nodiscard]] bool is_exact(std::uint64_t bytes) const noexcept { return last_unit_of(bytes) >= class_units_; }
  /// The magazine that a block for `bytes` comes from and goes to.
  [[nodiscard]] std::size_t index_for(std::uint64_t bytes) const noexcept {
    const std::uint64_t last_unit = last_unit_of(bytes);
    return last_unit >= class_units_ ? class_count_ + exact_slot(last_unit) : size_class_with(last_unit).index;
  }
  /// The size of a block for a request of `bytes`, rounded up to a class or to a unit.
  [[nodiscard]] std::uint64_t rounded_bytes(std::uint64_t bytes) const noexcept {
    return is_exact(bytes) ? block_bytes_for(bytes) : size_class_with(last_unit_of(bytes)).units * kUnitBytes;
  }
  [[nodiscard]] std::uint32_t class_count() const noexcept { return class_count_; }
  [[nodiscard]] std::uint32_t count() const noexcept { return count_; }

  static constexpr std::uint32_t kExactSlots = 32;

 private:
  [[nodiscard]] static std::size_t exact_slot(std::uint64_t last_unit) noexcept {
    // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
    constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;
    return (last_unit * kGoldenRatio) >> 59;
  }

  std::uint64_t class_units_;
  std::uint32_t class_count_ = 0;
  std::uint32_t count_ = 0;
};

}  // namespace tierpool
