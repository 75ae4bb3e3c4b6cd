#include "tierpool/pool/heap_selection.hpp"

#include <algorithm>
#include <array>

#include "tierpool/base/choice.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 4> kStrategyNames = {"round-robin", "best-fit", "least-used", "most-used"};

// Smaller goes first; the index breaks ties.
std::uint64_t rank(Strategy strategy, const HeapView& heap) noexcept {
  switch (strategy) {
    case Strategy::best_fit:
      return heap.largest_free_bytes;
    case Strategy::least_used:
      return heap.used_bytes;
    case Strategy::most_used:
      return ~heap.used_bytes;
    case Strategy::round_robin:
      break;
  }
  return 0;
}

}  // namespace

std::string_view to_string(Strategy strategy) noexcept { return kStrategyNames[static_cast<std::size_t>(strategy)]; }

Strategy parse_strategy(std::string_view name) {
  return static_cast<Strategy>(index_of_choice("strategy", name, kStrategyNames));
}

const std::vector<std::string_view>& strategy_names() {
  static const std::vector<std::string_view> names(kStrategyNames.begin(), kStrategyNames.end());
  return names;
}

std::size_t order_heaps(Strategy strategy, std::span<const HeapView> heaps, std::uint64_t bytes, std::uint64_t turn,
                        std::span<std::uint32_t> order) noexcept {
  std::size_t count = 0;
  std::size_t index = strategy == Strategy::round_robin ? turn : 0;
  if (index >= heaps.size() && !heaps.empty()) [[unlikely]] {
    index %= heaps.size();  // a division costs as much as all the rest
  }
  for (std::size_t step = 0; step < heaps.size(); ++step, ++index) {
    index = index < heaps.size() ? index : 0;
    if (heaps[index].largest_free_bytes >= bytes) {
      order[count++] = static_cast<std::uint32_t>(index);
    }
  }
  if (strategy != Strategy::round_robin) {
    // Insertion by rank: stable, no allocation, and heaps are few.
    for (std::size_t i = 1; i < count; ++i) {
      for (std::size_t j = i; j > 0 && rank(strategy, heaps[order[j]]) < rank(strategy, heaps[order[j - 1]]); --j) {
        std::swap(order[j], order[j - 1]);
      }
    }
  }
  return count;
}

}  // namespace tierpool
