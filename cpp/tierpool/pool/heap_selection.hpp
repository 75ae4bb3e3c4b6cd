#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace tierpool {

/// Which heap of a pool serves a request. Not to be confused with Placement, which picks the block inside the heap.
enum class Strategy {
  round_robin,  ///< one after the other
  best_fit,     ///< the heap with the smallest largest free block that still fits
  least_used,   ///< the heap with the fewest used bytes
  most_used,    ///< the fullest heap that fits, so that others empty and can be trimmed
};

[[nodiscard]] std::string_view to_string(Strategy strategy) noexcept;
/// Throws ConfigError naming the nearest known strategy.
[[nodiscard]] Strategy parse_strategy(std::string_view name);
[[nodiscard]] const std::vector<std::string_view>& strategy_names();

/// What a strategy may know of a heap. Read without the heap's lock, hence a hint.
struct HeapView {
  std::uint64_t used_bytes;
  std::uint64_t largest_free_bytes;  ///< upper bound
};

/// Writes to `order` the heaps that may serve `bytes`, in the order in which to try them, and returns how many.
/// `turn` is where round-robin begins; ties go to the lower index. `order` has room for every heap.
std::size_t order_heaps(Strategy strategy, std::span<const HeapView> heaps, std::uint64_t bytes, std::uint64_t turn,
                        std::span<std::uint32_t> order) noexcept;

}  // namespace tierpool
