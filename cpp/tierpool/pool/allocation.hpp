#pragma once

#include <cstdint>
#include <limits>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

inline constexpr std::uint32_t kNoHeap = std::numeric_limits<std::uint32_t>::max();

/// Who holds an allocation: close() reports forgotten buffers as leaks, living arrays as arrays.
enum class Holder : std::uint8_t { buffer, array };

/// What a pool handed out: a block of one of its heaps or a fallback allocation. A plain value; a stale or foreign one
/// is recognised by its generation and refused.
struct Allocation {
  std::uint64_t address = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t block_bytes = 0;       ///< requested bytes in whole units
  std::uint64_t dirty_bytes = 0;       ///< leading bytes that may be non-zero; the rest is fresh from the device
  std::uint32_t heap_index = kNoHeap;  ///< kNoHeap: a fallback allocation
  std::uint32_t node = kNoNode;
  std::uint32_t generation = 0;
  Holder holder = Holder::buffer;

  [[nodiscard]] bool is_fallback() const noexcept { return heap_index == kNoHeap; }
  explicit operator bool() const noexcept { return address != 0; }
};

}  // namespace tierpool
