// The block allocator alone: one thread, no lock, no memory. Time is per operation: an allocation and a free are two.

#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kSmallestBytes = 256;
constexpr std::uint64_t kLargestBytes = 16 * kMiB;
constexpr std::uint64_t kFixedBytes = 64 * kKiB;
constexpr std::size_t kSteps = 1 << 16;

/// One free of a random live block and the allocation that takes its place, drawn beforehand.
struct Step {
  std::uint64_t bytes = 0;
  std::uint32_t slot = 0;
};

std::uint64_t log_uniform_bytes(std::mt19937_64& random) {
  std::uniform_real_distribution<double> exponent(std::log2(kSmallestBytes), std::log2(kLargestBytes));
  return static_cast<std::uint64_t>(std::exp2(exponent(random)));
}

template <class Size>
std::vector<Step> draw_steps(std::uint32_t live_count, const Size& size) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<std::uint32_t> slot(0, live_count - 1);
  std::vector<Step> steps(kSteps);
  for (Step& step : steps) {
    step = {size(random), slot(random)};
  }
  return steps;
}

/// Keeps `live_count` blocks live in a heap four times as large as they are on average.
template <class Size>
void churn(benchmark::State& state, Placement placement, std::uint32_t live_count, const Size& size) {
  const std::vector<Step> steps = draw_steps(live_count, size);
  std::uint64_t total_bytes = 0;
  for (const Step& step : steps) {
    total_bytes += step.bytes;
  }
  BlockAllocator blocks(total_bytes / kSteps * live_count * 4, placement);
  std::vector<Block> live(live_count);
  for (std::uint32_t slot = 0; slot < live_count; ++slot) {
    live[slot] = blocks.allocate(steps[slot].bytes);
  }
  const auto run_steps = [&] {
    for (const Step& step : steps) {
      Block& block = live[step.slot];
      blocks.free(block.node, block.generation);
      block = blocks.allocate(step.bytes);
    }
  };
  run_steps();  // from the fresh heap to its steady state
  while (state.KeepRunningBatch(2 * kSteps)) {
    run_steps();
  }
  if (blocks.live_count() != live_count) {
    state.SkipWithError("an allocation failed");
  }
}

void run_log_uniform(benchmark::State& state, Placement placement, std::uint32_t live_count) {
  churn(state, placement, live_count, log_uniform_bytes);
}

void run_fixed(benchmark::State& state, Placement placement, std::uint32_t live_count) {
  churn(state, placement, live_count, [](std::mt19937_64&) { return kFixedBytes; });
}

/// A full heap of equal blocks with every second one freed, asked for `bytes`, more than any of them.
void run_failing(benchmark::State& state, Placement placement, std::uint32_t free_count, std::uint64_t bytes) {
  BlockAllocator blocks(2 * free_count * kFixedBytes, placement);
  std::vector<Block> all(2 * free_count);
  for (Block& block : all) {
    block = blocks.allocate(kFixedBytes);
  }
  for (std::size_t index = 0; index < all.size(); index += 2) {
    blocks.free(all[index].node, all[index].generation);
  }
  for (auto _ : state) {
    const Block block = blocks.allocate(bytes);
    if (block) {
      state.SkipWithError("the request was served");
    }
    benchmark::DoNotOptimize(block);
  }
}

void register_rows(const std::string& name, Placement placement) {
  for (const std::uint32_t live_count : {100U, 1'000U, 10'000U}) {
    benchmark::RegisterBenchmark(("log-uniform/" + name + "/live:" + std::to_string(live_count)).c_str(),
                                 run_log_uniform, placement, live_count);
  }
  benchmark::RegisterBenchmark(("fixed-64KiB/" + name + "/live:1000").c_str(), run_fixed, placement, 1'000U);
  benchmark::RegisterBenchmark(("failing-larger-bin/" + name + "/free:1000").c_str(), run_failing, placement, 1'000U,
                               2 * kFixedBytes);
  benchmark::RegisterBenchmark(("failing-same-bin/" + name + "/free:1000").c_str(), run_failing, placement, 1'000U,
                               kFixedBytes + kUnitBytes);
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  for (const std::string_view name : tierpool::placement_names()) {
    tierpool::register_rows(std::string(name), tierpool::parse_placement(name));
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
