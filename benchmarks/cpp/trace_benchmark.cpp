// The shipped traces through the block allocator, a whole pool, and general-purpose mallocs. Time is per event, an
// allocation or a free. No buffer is written, so that the allocators are compared and not the memory.

#include <benchmark/benchmark.h>

#include <array>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "foreign_allocator.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/memory_pool.hpp"
#include "trace_file.hpp"

namespace tierpool {
namespace {

constexpr std::array<const char*, 3> kTraceNames = {"llama-1b-decode", "qwen3-moe-decode", "gpt2-train-varlen"};

/// Room enough for every placement on every trace.
std::uint64_t capacity_bytes(const Trace& trace) { return align_up(2 * trace.peak_live_bytes(), kMiB); }

/// One benchmark iteration is one event; what the trace leaves live is freed with it.
template <class Live, class Allocate, class Free>
void run_events(benchmark::State& state, const Trace& trace, const Allocate& allocate, const Free& free) {
  std::vector<Live> live(trace.slot_count());
  std::vector<bool> is_live(trace.slot_count());
  for (const TraceEvent& event : trace.events()) {
    is_live[event.slot] = event.allocates;
  }
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(trace.event_count()))) {
    for (const TraceEvent& event : trace.events()) {
      if (event.allocates) {
        live[event.slot] = allocate(event.bytes);
        if (!live[event.slot]) {
          state.SkipWithError("an allocation failed");
          return;
        }
      } else {
        free(live[event.slot]);
      }
    }
    for (std::uint32_t slot = 0; slot < trace.slot_count(); ++slot) {
      if (is_live[slot]) {
        free(live[slot]);
      }
    }
  }
  state.SetLabel("memory untouched");
}

void run_blocks(benchmark::State& state, const Trace& trace, Placement placement) {
  BlockAllocator blocks(capacity_bytes(trace), placement);
  run_events<Block>(
      state, trace, [&](std::uint64_t bytes) { return blocks.allocate(bytes); },
      [&](const Block& block) { blocks.free(block.node, block.generation); });
}

void run_pool(benchmark::State& state, const Trace& trace) {
  PoolConfig config;
  config.heap_size_bytes = capacity_bytes(trace);
  config.num_heaps = 1;
  config.warmup_bytes = {config.heap_size_bytes};
  config.on_exhaustion = OnExhaustion::raise;
  // Simulated: a heap on the host would commit its gigabytes for nothing, since nobody writes to them.
  const std::shared_ptr<MemoryPool> owned = MemoryPool::create(config, make_device("simulated"));
  MemoryPool& pool = *owned;
  run_events<Allocation>(
      state, trace,
      [&](std::uint64_t bytes) {
        Allocation allocation;
        static_cast<void>(pool.serve({.bytes = bytes}, allocation));
        return allocation;
      },
      [&](const Allocation& allocation) { static_cast<void>(pool.release(allocation)); });
}

void run_foreign(benchmark::State& state, const Trace& trace, const ForeignAllocator& allocator) {
  if (!allocator.problem.empty()) {
    state.SkipWithError(allocator.problem.c_str());
    return;
  }
  run_events<void*>(state, trace, allocator.allocate, allocator.free);
}

void register_rows(const std::string& trace_name, const std::vector<ForeignAllocator>& allocators) {
  const auto trace =
      std::make_shared<const Trace>(read_trace(std::string(TIERPOOL_TRACE_FOLDER) + "/" + trace_name + ".csv.gz"));
  const auto add = [&](const std::string& row, const std::function<void(benchmark::State&)>& run) {
    benchmark::RegisterBenchmark((trace_name + "/" + row).c_str(), run);
  };
  for (const std::string_view name : placement_names()) {
    const Placement placement = parse_placement(name);
    add("BlockAllocator/" + std::string(name),
        [trace, placement](benchmark::State& state) { run_blocks(state, *trace, placement); });
  }
  add("MemoryPool", [trace](benchmark::State& state) { run_pool(state, *trace); });
  for (const ForeignAllocator& allocator : allocators) {
    add(allocator.name, [trace, allocator](benchmark::State& state) { run_foreign(state, *trace, allocator); });
  }
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  try {
    const std::vector<tierpool::ForeignAllocator> allocators = {tierpool::glibc_malloc(), tierpool::open_mimalloc(),
                                                                tierpool::open_jemalloc()};
    for (const char* name : tierpool::kTraceNames) {
      tierpool::register_rows(name, allocators);
    }
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
