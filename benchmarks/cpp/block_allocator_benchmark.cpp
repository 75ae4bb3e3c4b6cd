// The block allocator alone: one thread, no lock, no memory. Time is per pair, an allocation and its free.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "request_sizes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "trace_file.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kFixedBytes = 64 * kKiB;
constexpr SizeRange kFixedSize = {kFixedBytes, kFixedBytes};
constexpr SizeRange kAllSizes = {256, 16 * kMiB};
constexpr std::size_t kChurnSteps = 1 << 16;
constexpr const char* kLabel = "pair; no memory";

/// Keeps `live_count` blocks live in a heap four times as large as they are on average.
void run_churn(benchmark::State& state, Placement placement, std::uint32_t live_count, const SizeRange& range) {
  const std::vector<ChurnStep> steps = draw_churn(kChurnSteps, live_count, range);
  BlockAllocator blocks(churn_capacity_bytes(steps, live_count), placement);
  std::vector<Block> live(live_count);
  for (std::uint32_t slot = 0; slot < live_count; ++slot) {
    live[slot] = blocks.allocate(steps[slot].bytes);
  }
  const auto run_steps = [&] {
    for (const ChurnStep& step : steps) {
      Block& block = live[step.slot];
      blocks.free(block.node, block.generation);
      block = blocks.allocate(step.bytes);
    }
  };
  run_steps();  // from the fresh heap to its steady state
  while (state.KeepRunningBatch(kChurnSteps)) {
    run_steps();
  }
  if (blocks.live_count() != live_count) {
    state.SkipWithError("an allocation failed");
  }
  state.SetLabel(kLabel);
}

/// All events of a trace in a heap twice its peak; what it leaves live is freed behind it.
void run_trace(benchmark::State& state, Placement placement, const Trace& trace) {
  BlockAllocator blocks(align_up(2 * trace.peak_live_bytes(), kMiB), placement);
  std::vector<Block> live(trace.slot_count());
  const std::vector<std::uint32_t> left_live = trace_left_live(trace);
  const auto free = [&](const Block& block) { blocks.free(block.node, block.generation); };
  bool failed = false;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(trace.allocation_count()))) {
    for (const TraceEvent& event : trace.events()) {
      if (event.allocates) {
        live[event.slot] = blocks.allocate(event.bytes);
        failed |= !live[event.slot];
      } else {
        free(live[event.slot]);
      }
    }
    for (const std::uint32_t slot : left_live) {
      free(live[slot]);
    }
  }
  if (failed) {
    state.SkipWithError("an allocation failed");
  }
  state.SetLabel(kLabel);
}

/// A full heap of equal blocks with every second one freed, asked for `bytes`, more than any of them. Time is per call.
void run_failing(benchmark::State& state, Placement placement, std::uint64_t bytes) {
  constexpr std::size_t kFreeBlocks = 1'000;
  BlockAllocator blocks(2 * kFreeBlocks * kFixedBytes, placement);
  std::vector<Block> all(2 * kFreeBlocks);
  for (Block& block : all) {
    block = blocks.allocate(kFixedBytes);
  }
  for (std::size_t index = 0; index < all.size(); index += 2) {
    blocks.free(all[index].node, all[index].generation);
  }
  bool served = false;
  for (auto _ : state) {
    const Block block = blocks.allocate(bytes);
    served |= static_cast<bool>(block);
    benchmark::DoNotOptimize(block);
  }
  if (served) {
    state.SkipWithError("the request was served");
  }
  state.SetLabel("call");
}

void register_rows(Placement placement) {
  const auto add = [&](const std::string& workload, const std::function<void(benchmark::State&)>& run) {
    const std::string name = "block-allocator/" + workload + "/" + std::string(to_string(placement));
    benchmark::RegisterBenchmark(name.c_str(), run);
  };
  for (const std::uint32_t live : {100U, 1'000U, 10'000U}) {
    add("churn-256B-16MiB/live:" + std::to_string(live),
        [=](auto& state) { run_churn(state, placement, live, kAllSizes); });
  }
  add("churn-64KiB/live:1000", [=](auto& state) { run_churn(state, placement, 1'000, kFixedSize); });
  for (const char* name : kShippedTraces) {
    add(std::string("trace-") + name, [=](auto& state) { run_trace(state, placement, *shipped_trace(name)); });
  }
  add("failing-no-bin", [=](auto& state) { run_failing(state, placement, 2 * kFixedBytes); });
  add("failing-above-largest-hole", [=](auto& state) { run_failing(state, placement, kFixedBytes + kUnitBytes); });
}

void register_all() {
  for (const std::string_view name : placement_names()) {
    register_rows(parse_placement(name));
  }
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  try {
    tierpool::register_all();
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
