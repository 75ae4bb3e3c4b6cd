#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>

namespace tierpool {

/// How a request is rounded up to the size of a buffer that can be used again.
enum class SizeClasses {
  eighths,       ///< whole 256-byte units up to 2 KiB, then 8 steps per power of two: at most 12.5 % above the request
  power_of_two,  ///< the next power of two; 0 and 1 give 1
  exact,         ///< not at all
};

[[nodiscard]] std::string_view to_string(SizeClasses size_classes) noexcept;
/// Throws ConfigError naming the nearest known choice.
[[nodiscard]] SizeClasses parse_size_classes(std::string_view name);

/// The largest request that has a size class, in bytes. No device has as much.
inline constexpr std::uint64_t kMaxRequestBytes = std::uint64_t{1} << 62;
/// Classes of eighths and of power_of_two are numbered from 0, below this.
inline constexpr std::uint32_t kNumberedClasses = 416;

struct NumberedClass {
  std::uint32_t index = 0;
  std::uint64_t bytes = 0;
};

/// `bytes` is at most kMaxRequestBytes.
[[nodiscard]] constexpr NumberedClass eighths_class(std::uint64_t bytes) noexcept {
  const std::uint64_t last = std::max<std::uint64_t>(bytes, 1) - 1;
  const auto shift = static_cast<std::uint32_t>(std::bit_width(last | 0x800)) - 4;  // log2 of the step; 8 at least
  const std::uint64_t step = last >> shift;
  return {static_cast<std::uint32_t>((shift - 8) * 8 + step), (step + 1) << shift};
}

/// `bytes` is at most kMaxRequestBytes.
[[nodiscard]] constexpr NumberedClass power_of_two_class(std::uint64_t bytes) noexcept {
  const auto exponent = static_cast<std::uint32_t>(std::bit_width(std::max<std::uint64_t>(bytes, 1) - 1));
  return {exponent, std::uint64_t{1} << exponent};
}

/// Bytes of the buffer that serves a request. `bytes` is at most kMaxRequestBytes.
[[nodiscard]] constexpr std::uint64_t class_bytes_for(SizeClasses size_classes, std::uint64_t bytes) noexcept {
  switch (size_classes) {
    case SizeClasses::eighths:
      return eighths_class(bytes).bytes;
    case SizeClasses::power_of_two:
      return power_of_two_class(bytes).bytes;
    case SizeClasses::exact:
      break;
  }
  return bytes;
}

}  // namespace tierpool
