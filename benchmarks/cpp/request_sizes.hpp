#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace tierpool {

/// Bounds of log-uniformly drawn request sizes: every power of two between them is as likely as the next.
struct SizeRange {
  std::uint64_t smallest_bytes = 0;
  std::uint64_t largest_bytes = 0;
};

/// One free of a random live block and the request that takes its place, drawn beforehand.
struct ChurnStep {
  std::uint64_t bytes = 0;
  std::uint32_t slot = 0;
};

[[nodiscard]] std::uint64_t draw_bytes(std::mt19937_64& random, const SizeRange& range);
/// The same sizes in every process: the seed is fixed.
[[nodiscard]] std::vector<std::uint64_t> draw_sizes(std::size_t count, const SizeRange& range);
[[nodiscard]] std::vector<ChurnStep> draw_churn(std::size_t count, std::uint32_t live_count, const SizeRange& range);

/// Room for `live_count` of these steps' requests four times over, and at least the pool's default heap.
[[nodiscard]] std::uint64_t churn_capacity_bytes(const std::vector<ChurnStep>& steps, std::uint32_t live_count);

}  // namespace tierpool
