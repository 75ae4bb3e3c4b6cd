// The whole pool beside general-purpose mallocs, each workload the same for all. Time is per pair, an allocation and
// its free. No buffer is written, so that the allocators are compared and not the memory.

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "foreign_allocator.hpp"
#include "pool_variant.hpp"
#include "request_sizes.hpp"
#include "tierpool/base/bytes.hpp"
#include "trace_file.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kFixedBytes = 64 * kKiB;
constexpr SizeRange kSmallSizes = {256, kMiB};
constexpr SizeRange kAllSizes = {256, 16 * kMiB};
constexpr std::size_t kChurnSteps = 1 << 16;
constexpr std::size_t kBatchCount = 1'750;
constexpr std::uint64_t kSmallestHeapBytes = 256 * kMiB;  // the pool's default
constexpr const char* kLabel = "pair; memory untouched";

using Row = std::function<void(benchmark::State&)>;
using AddRow = std::function<void(const std::string& workload, int threads, const Row& row)>;

/// Each allocator opens for a number of bytes per thread; only the pool needs to know them.
template <class Open>
void run_fixed(benchmark::State& state, const Open& open) {
  const auto allocator = open(state, kSmallestHeapBytes);
  for (auto _ : state) {
    typename std::decay_t<decltype(allocator)>::Live live;
    allocator.allocate(kFixedBytes, live);
    benchmark::DoNotOptimize(live);
    allocator.free(live);
  }
  state.SetLabel(kLabel);
}

/// Keeps `live_count` blocks live: frees a random one, allocates another.
template <class Open>
void run_churn(benchmark::State& state, const Open& open, std::uint32_t live_count, const SizeRange& range) {
  const std::vector<ChurnStep> steps = draw_churn(kChurnSteps, live_count, range);
  const auto allocator = open(state, churn_capacity_bytes(steps, live_count));
  std::vector<typename std::decay_t<decltype(allocator)>::Live> live(live_count);
  for (std::uint32_t slot = 0; slot < live_count; ++slot) {
    allocator.allocate(steps[slot].bytes, live[slot]);
  }
  bool failed = false;
  const auto run_steps = [&] {
    for (const ChurnStep& step : steps) {
      allocator.free(live[step.slot]);
      allocator.allocate(step.bytes, live[step.slot]);
      failed |= !live[step.slot];
    }
  };
  run_steps();  // from the fresh heap to its steady state
  while (state.KeepRunningBatch(kChurnSteps)) {
    run_steps();
  }
  for (const auto& block : live) {
    allocator.free(block);
  }
  if (failed) {
    state.SkipWithError("an allocation failed");
  }
  state.SetLabel(kLabel);
}

/// Allocates all sizes, then frees them in the same order, as a token's scratch buffers are.
template <class Open>
void run_batch(benchmark::State& state, const Open& open, const std::function<std::vector<std::uint64_t>()>& draw) {
  const std::vector<std::uint64_t> sizes = draw();
  const auto allocator = open(state, 4 * kSmallestHeapBytes);
  std::vector<typename std::decay_t<decltype(allocator)>::Live> live(sizes.size());
  bool failed = false;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    for (std::size_t index = 0; index < sizes.size(); ++index) {
      allocator.allocate(sizes[index], live[index]);
      failed |= !live[index];
    }
    for (const auto& block : live) {
      allocator.free(block);
    }
  }
  if (failed) {
    state.SkipWithError("an allocation failed");
  }
  state.SetLabel(kLabel);
}

/// All events of a trace; what it leaves live is freed behind it.
template <class Open>
void run_trace(benchmark::State& state, const Open& open, const std::string& name) {
  const std::shared_ptr<const Trace> kept = shipped_trace(name);
  const Trace& trace = *kept;
  const auto allocator = open(state, std::max(align_up(4 * trace.peak_live_bytes(), kMiB), kSmallestHeapBytes));
  std::vector<typename std::decay_t<decltype(allocator)>::Live> live(trace.slot_count());
  bool failed = false;
  const std::vector<std::uint32_t> left_live = trace_left_live(trace);
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(trace.allocation_count()))) {
    for (const TraceEvent& event : trace.events()) {
      if (event.allocates) {
        allocator.allocate(event.bytes, live[event.slot]);
        failed |= !live[event.slot];
      } else {
        allocator.free(live[event.slot]);
      }
    }
    for (const std::uint32_t slot : left_live) {
      allocator.free(live[slot]);
    }
  }
  if (failed) {
    state.SkipWithError("an allocation failed");
  }
  state.SetLabel(kLabel);
}

/// A full heap of equal blocks with every second one freed, asked for `bytes`, more than any of them. Time is per call.
void run_failing(benchmark::State& state, const PoolVariant& variant, std::uint64_t bytes) {
  constexpr std::size_t kFreeBlocks = 1'000;
  const std::shared_ptr<MemoryPool> pool = make_pool(variant, 2 * kFreeBlocks * kFixedBytes);
  std::vector<Allocation> all(2 * kFreeBlocks);
  for (Allocation& allocation : all) {
    allocation = pool->allocate(kFixedBytes);
  }
  for (std::size_t index = 0; index < all.size(); index += 2) {
    static_cast<void>(pool->release(all[index]));
  }
  const AllocationRequest request = {.bytes = bytes, .heaps_only = true};
  Allocation allocation;
  AllocationOutcome outcome = pool->serve(request, allocation);  // the first one empties what is parked
  for (auto _ : state) {
    outcome = pool->serve(request, allocation);
    benchmark::DoNotOptimize(allocation);
  }
  if (outcome != AllocationOutcome::out_of_memory) {
    state.SkipWithError("the request was served");
  }
  state.SetLabel("call");
}

/// Registers every workload for one allocator; the only list of them.
template <class Open>
void register_workloads(const AddRow& add, const Open& open) {
  for (const int threads : {1, 2}) {
    add("fixed-64KiB", threads, [=](benchmark::State& state) { run_fixed(state, open); });
    for (const std::uint32_t live : {100U, 1'000U, 10'000U}) {
      const std::string suffix = "/live:" + std::to_string(live);
      add("churn-256B-1MiB" + suffix, threads, [=](auto& state) { run_churn(state, open, live, kSmallSizes); });
      add("churn-256B-16MiB" + suffix, threads, [=](auto& state) { run_churn(state, open, live, kAllSizes); });
    }
    const auto llama = [] { return middle_sizes(*shipped_trace(kShippedTraces[0]), kBatchCount); };
    const auto drawn = [] { return draw_sizes(kBatchCount, kSmallSizes); };
    add("batch-1750-llama", threads, [=](benchmark::State& state) { run_batch(state, open, llama); });
    add("batch-1750-256B-1MiB", threads, [=](benchmark::State& state) { run_batch(state, open, drawn); });
    for (const char* name : kShippedTraces) {
      add(std::string("trace-") + name, threads, [=](benchmark::State& state) { run_trace(state, open, name); });
    }
  }
}

AddRow rows_of(const std::string& allocator_name) {
  return [allocator_name](const std::string& workload, int threads, const Row& row) {
    const auto run = [row](benchmark::State& state) {
      try {
        row(state);
      } catch (const std::exception& error) {
        state.SkipWithError(error.what());
      }
    };
    benchmark::RegisterBenchmark(("pool/" + workload + "/" + allocator_name).c_str(), run)->Threads(threads);
  };
}

void register_pool(const PoolVariant& variant) {
  const auto shared = std::make_shared<SharedPool>(variant);
  const auto open = [shared](const benchmark::State& state, std::uint64_t thread_bytes) {
    return shared->open(thread_bytes * static_cast<std::uint64_t>(state.threads()));
  };
  const AddRow add = rows_of(variant.name);
  register_workloads(add, open);
  add("failing-no-bin", 1, [&variant](auto& state) { run_failing(state, variant, 2 * kFixedBytes); });
  add("failing-above-largest-hole", 1,
      [&variant](auto& state) { run_failing(state, variant, kFixedBytes + kUnitBytes); });
}

void register_foreign(const ForeignAllocator& allocator) {
  const auto open = [allocator](const benchmark::State&, std::uint64_t) { return allocator; };
  if (allocator.problem.empty()) {
    register_workloads(rows_of(allocator.name), open);
    return;
  }
  rows_of(allocator.name)("unavailable", 1,
                          [allocator](auto& state) { state.SkipWithError(allocator.problem.c_str()); });
}

void register_all() {
  for (const PoolVariant& variant : kPoolVariants) {
    register_pool(variant);
  }
  for (const ForeignAllocator& allocator : foreign_allocators()) {
    register_foreign(allocator);
  }
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  tierpool::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
