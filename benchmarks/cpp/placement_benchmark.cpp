// How full a heap gets before the first request fails, for each placement. Not a matter of time: the same in every run.
//
// A heap is filled until a request fails; then a random 5 % of its blocks are freed, it is filled again, and so on. The
// figure is the requested bytes that are live when a request fails, over the heap's capacity. Fragmentation takes
// hundreds of rounds to settle: a fresh heap looks 5 points better, and the placements rank otherwise.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "pool_variant.hpp"
#include "request_sizes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kCapacityBytes = 16 * kGiB;
constexpr std::uint64_t kSeeds = 5;
constexpr std::size_t kEvictOneOf = 20;  // 5 %
constexpr std::uint64_t kKvLargeBytes = 3'120'000;
constexpr std::uint64_t kKvSmallBytes = 643'000;

using DrawSize = std::uint64_t (*)(std::mt19937_64&);

std::uint64_t draw_between(std::mt19937_64& random, std::uint64_t smallest, std::uint64_t largest) {
  return std::uniform_int_distribution<std::uint64_t>(smallest, largest)(random);
}

std::uint64_t draw_uniform_page(std::mt19937_64&) { return 2 * kMiB + 17; }

std::uint64_t draw_kv(std::mt19937_64& random) { return random() % 2 == 0 ? kKvLargeBytes : kKvSmallBytes; }

std::uint64_t draw_uniform(std::mt19937_64& random) { return draw_between(random, kMiB, 8 * kMiB); }

std::uint64_t draw_log_uniform(std::mt19937_64& random) { return draw_bytes(random, {256, 64 * kMiB}); }

/// 60 % KV pages, 25 % small, 10 % rows of activations, 5 % large.
std::uint64_t draw_llm(std::mt19937_64& random) {
  const std::uint64_t percent = draw_between(random, 0, 99);
  if (percent < 60) {
    return 2 * kMiB;
  }
  if (percent < 85) {
    return draw_bytes(random, {256, 64 * kKiB});
  }
  return percent < 95 ? 28 * kKiB * draw_between(random, 1, 128) : draw_between(random, 32 * kMiB, 64 * kMiB);
}

struct Mix {
  const char* name;
  DrawSize draw;
  int settling_rounds;
  int rounds;
};

constexpr std::array kMixes = {
    Mix{"uniform-2MiB+17B", draw_uniform_page, 1'000, 1'000},      Mix{"kv-3.12MB+643KB", draw_kv, 1'000, 1'000},
    Mix{"kv-3.12MB+643KB-first-20-rounds", draw_kv, 1, 20},        Mix{"uniform-1-8MiB", draw_uniform, 1'000, 1'000},
    Mix{"log-uniform-256B-64MiB", draw_log_uniform, 1'000, 1'000}, Mix{"llm-mix", draw_llm, 1'000, 1'000},
};

template <class Live>
struct Heap {
  std::function<Live(std::uint64_t bytes)> allocate;
  std::function<void(const Live&)> free;
};

/// Live requested bytes at the first failure of every round.
template <class Live>
std::vector<double> fill_rounds(const Heap<Live>& heap, const Mix& mix, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<Live, std::uint64_t>> live;
  std::uint64_t live_bytes = 0;
  std::vector<double> rounds;
  for (int round = 0; round < mix.settling_rounds + mix.rounds; ++round) {
    for (;;) {
      const std::uint64_t bytes = mix.draw(random);
      const Live block = heap.allocate(bytes);
      if (!block) {
        break;
      }
      live.emplace_back(block, bytes);
      live_bytes += bytes;
    }
    if (round >= mix.settling_rounds) {
      rounds.push_back(static_cast<double>(live_bytes) / static_cast<double>(kCapacityBytes));
    }
    for (std::size_t evictions = live.size() / kEvictOneOf; evictions > 0; --evictions) {
      std::swap(live[draw_between(random, 0, live.size() - 1)], live.back());
      heap.free(live.back().first);
      live_bytes -= live.back().second;
      live.pop_back();
    }
  }
  for (const auto& [block, bytes] : live) {
    heap.free(block);
  }
  return rounds;
}

void report(benchmark::State& state, const std::vector<double>& rounds) {
  state.counters["mean"] = std::accumulate(rounds.begin(), rounds.end(), 0.0) / static_cast<double>(rounds.size());
  state.counters["min"] = *std::min_element(rounds.begin(), rounds.end());
  state.SetLabel("requested / capacity");
}

template <class Live, class MakeHeap>
void run_mix(benchmark::State& state, const Mix& mix, const MakeHeap& with_heap) {
  std::vector<double> rounds;
  for (auto _ : state) {
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
      with_heap([&](const Heap<Live>& heap) {
        const std::vector<double> more = fill_rounds(heap, mix, seed);
        rounds.insert(rounds.end(), more.begin(), more.end());
      });
    }
  }
  report(state, rounds);
}

void run_placement(benchmark::State& state, const Mix& mix, Placement placement) {
  run_mix<Block>(state, mix, [placement](const auto& use) {
    BlockAllocator blocks(kCapacityBytes, placement);
    use(Heap<Block>{[&](std::uint64_t bytes) { return blocks.allocate(bytes); },
                    [&](const Block& block) { blocks.free(block.node, block.generation); }});
  });
}

void run_pool(benchmark::State& state, const Mix& mix, const PoolVariant& variant) {
  run_mix<Allocation>(state, mix, [&variant](const auto& use) {
    const PoolAllocator pool(make_pool(variant, kCapacityBytes));
    use(Heap<Allocation>{[&](std::uint64_t bytes) {
                           Allocation allocation;
                           pool.allocate(bytes, allocation);
                           return allocation;
                         },
                         [&](const Allocation& allocation) { pool.free(allocation); }});
  });
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(("utilisation/" + name).c_str(), run)->Iterations(1)->Repetitions(1);
}

void register_rows() {
  for (const Mix& mix : kMixes) {
    for (const std::string_view name : placement_names()) {
      const Placement placement = parse_placement(name);
      add(std::string(mix.name) + "/" + std::string(name),
          [&mix, placement](benchmark::State& state) { run_placement(state, mix, placement); });
    }
    for (const PoolVariant& variant : kUtilisationVariants) {
      add(std::string(mix.name) + "/" + variant.name,
          [&mix, &variant](benchmark::State& state) { run_pool(state, mix, variant); });
    }
  }
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  tierpool::register_rows();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
