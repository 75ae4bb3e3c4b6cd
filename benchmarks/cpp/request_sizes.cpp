#include "request_sizes.hpp"

#include <algorithm>
#include <cmath>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr std::uint64_t kSmallestCapacityBytes = 256 * kMiB;
constexpr std::uint64_t kRoom = 4;

}  // namespace

std::uint64_t draw_bytes(std::mt19937_64& random, const SizeRange& range) {
  std::uniform_real_distribution<double> exponent(std::log2(range.smallest_bytes), std::log2(range.largest_bytes));
  return static_cast<std::uint64_t>(std::exp2(exponent(random)));
}

std::vector<std::uint64_t> draw_sizes(std::size_t count, const SizeRange& range) {
  std::mt19937_64 random(kSeed);
  std::vector<std::uint64_t> sizes(count);
  std::generate(sizes.begin(), sizes.end(), [&] { return draw_bytes(random, range); });
  return sizes;
}

std::vector<ChurnStep> draw_churn(std::size_t count, std::uint32_t live_count, const SizeRange& range) {
  std::mt19937_64 random(kSeed);
  std::uniform_int_distribution<std::uint32_t> slot(0, live_count - 1);
  std::vector<ChurnStep> steps(count);
  for (ChurnStep& step : steps) {
    step.bytes = draw_bytes(random, range);
    step.slot = slot(random);
  }
  return steps;
}

std::uint64_t churn_capacity_bytes(const std::vector<ChurnStep>& steps, std::uint32_t live_count) {
  std::uint64_t total_bytes = 0;
  for (const ChurnStep& step : steps) {
    total_bytes += step.bytes;
  }
  return align_up(std::max(total_bytes / steps.size() * live_count * kRoom, kSmallestCapacityBytes), kMiB);
}

}  // namespace tierpool
