#pragma once

#include <bit>
#include <cstdint>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

/// The size classes of magazines: 16 per power of two, so that a class wastes at most 1/16 of a block. Sizes up to 32
/// units are classes of their own.
inline constexpr std::uint32_t kClassesPerPowerOfTwo = 16;

/// How many whole units are full before the last one that a request of `bytes` needs; zero bytes need one.
[[nodiscard]] constexpr std::uint64_t last_unit_of(std::uint64_t bytes) noexcept {
  return (bytes - (bytes != 0 ? 1 : 0)) / kUnitBytes;
}
/// The least a block for `bytes` has. Below 2**64 for requests that leave room for a unit.
[[nodiscard]] constexpr std::uint64_t block_bytes_for(std::uint64_t bytes) noexcept {
  return (last_unit_of(bytes) + 1) * kUnitBytes;
}

struct SizeClass {
  std::size_t index = 0;
  std::uint64_t units = 0;  ///< what every block of the class has
};

/// The smallest class that holds the unit `last_unit`, counted from 0.
[[nodiscard]] constexpr SizeClass size_class_with(std::uint64_t last_unit) noexcept {
  const auto shift = static_cast<std::size_t>(std::bit_width(last_unit | kClassesPerPowerOfTwo)) - 5;
  const std::uint64_t step = last_unit >> shift;  // below 32
  return {shift * kClassesPerPowerOfTwo + step, (step + 1) << shift};
}
/// The smallest class that holds `units` (at least 1).
[[nodiscard]] constexpr SizeClass size_class_of(std::uint64_t units) noexcept { return size_class_with(units - 1); }

}  // namespace tierpool
