#pragma once

#include <cstdint>
#include <limits>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

inline constexpr std::uint32_t kNoHeap = std::numeric_limits<std::uint32_t>::max();

/// A block that no magazine takes: it goes back to its heap.
inline constexpr std::uint16_t kNoMagazine = std::numeric_limits<std::uint16_t>::max();
/// A block that other streams than its lane's use: its release waits for them.
inline constexpr std::uint16_t kManyStreams = kNoMagazine - 1;

/// Who holds an allocation: close() reports forgotten buffers as leaks, living arrays as arrays.
enum class Holder : std::uint8_t { buffer, array };

/// What a pool handed out: a block of one of its heaps or a fallback allocation. A plain value; a stale or foreign one
/// is recognised by its generation and refused.
struct Allocation {
  std::uint64_t address = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t block_bytes = 0;       ///< requested bytes in whole units or rounded up to a size class
  std::uint64_t dirty_bytes = 0;       ///< leading bytes that may be non-zero; the rest is fresh from the device
  std::uint32_t heap_index = kNoHeap;  ///< kNoHeap: a fallback allocation
  std::uint32_t node = kNoNode;
  std::uint32_t generation = 0;
  Holder holder = Holder::buffer;
  std::uint16_t magazine = kNoMagazine;  ///< where its release may park it

  [[nodiscard]] bool is_fallback() const noexcept { return heap_index == kNoHeap; }
  explicit operator bool() const noexcept { return address != 0; }
};

/// What a release found.
enum class ReleaseResult {
  stale,            ///< the allocation is not live here; nothing changed
  released,         ///< as usual
  released_orphan,  ///< by an allocation that outlived every pointer to its pool
};

}  // namespace tierpool
