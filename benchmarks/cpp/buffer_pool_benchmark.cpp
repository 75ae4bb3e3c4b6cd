// One token's scratch: 1750 buffers of mixed sizes, taken and then recycled together. Time is per buffer and includes
// the reset (or the frees). No buffer is written, so that the allocators are compared and not the memory.

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/device_registry.hpp"
#include "tierpool/pool/memory_pool.hpp"
#include "trace_file.hpp"

namespace tierpool {
namespace {

constexpr std::size_t kBuffersPerToken = 1750;
using Sizes = std::vector<std::uint64_t>;

Sizes log_uniform_sizes() {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(std::log2(256.0), std::log2(1024.0 * 1024.0));
  Sizes sizes(kBuffersPerToken);
  for (std::uint64_t& bytes : sizes) {
    bytes = static_cast<std::uint64_t>(std::exp2(exponent(random)));
  }
  return sizes;
}

Sizes all_sizes(const Trace& trace) {
  Sizes sizes;
  for (const TraceEvent& event : trace.events()) {
    if (event.allocates) {
      sizes.push_back(event.bytes);
    }
  }
  return sizes;
}

/// As many allocations as a token has, from the middle of the trace, in their order.
Sizes decode_sizes() { return middle_sizes(*shipped_trace("llama-1b-decode"), kBuffersPerToken); }

// Simulated: on the host the buffers would cost memory for nothing, since nobody writes to them.
std::shared_ptr<MemoryPool> bare_device() {
  PoolConfig config;
  config.enabled = false;
  return MemoryPool::create(config, make_device("simulated"));
}

BufferPoolConfig config_with(SizeClasses size_classes) {
  BufferPoolConfig config;
  config.size_classes = size_classes;
  return config;
}

void run_batch(benchmark::State& state, const Sizes& sizes, SizeClasses size_classes) {
  BufferPool pool(config_with(size_classes), bare_device());
  std::vector<Lease> leases(sizes.size());
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    pool.alloc_batch(sizes, leases);
    benchmark::DoNotOptimize(leases.data());
    static_cast<void>(pool.reset());
  }
  state.counters["fresh"] = static_cast<double>(pool.statistics().fresh);
}

void run_single(benchmark::State& state, const Sizes& sizes, SizeClasses size_classes) {
  BufferPool pool(config_with(size_classes), bare_device());
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    for (const std::uint64_t bytes : sizes) {
      benchmark::DoNotOptimize(pool.alloc(bytes));
    }
    static_cast<void>(pool.reset());
  }
  state.counters["fresh"] = static_cast<double>(pool.statistics().fresh);
}

void run_alloc_release(benchmark::State& state, const Sizes& sizes) {
  BufferPool pool(BufferPoolConfig{}, bare_device());
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    for (const std::uint64_t bytes : sizes) {
      static_cast<void>(pool.release(pool.alloc(bytes)));
    }
  }
}

void run_memory_pool(benchmark::State& state, const Sizes& sizes) {
  PoolConfig config;
  config.heap_size_bytes = kGiB;
  config.num_heaps = 1;
  config.warmup_bytes = {config.heap_size_bytes};
  const std::shared_ptr<MemoryPool> owned = MemoryPool::create(config, make_device("simulated"));
  MemoryPool& pool = *owned;
  std::vector<Allocation> allocations(sizes.size());
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      static_cast<void>(pool.serve({.bytes = sizes[i]}, allocations[i]));
    }
    for (const Allocation& allocation : allocations) {
      static_cast<void>(pool.release(allocation));
    }
  }
}

void run_malloc(benchmark::State& state, const Sizes& sizes) {
  std::vector<void*> pointers(sizes.size());
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sizes.size()))) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      pointers[i] = std::malloc(sizes[i]);
    }
    benchmark::DoNotOptimize(pointers.data());
    for (void* pointer : pointers) {
      std::free(pointer);
    }
  }
}

/// What rounding up to classes adds to every request of a trace, as a share of the requested bytes; alone, and the same
/// for the requests from 2 KiB up.
void run_waste(benchmark::State& state, const Sizes& sizes, SizeClasses size_classes) {
  double requested = 0;
  double held = 0;
  double worst = 0;
  for (auto _ : state) {
    requested = held = worst = 0;
    for (const std::uint64_t bytes : sizes) {
      const auto class_bytes = static_cast<double>(class_bytes_for(size_classes, bytes));
      requested += static_cast<double>(bytes);
      held += class_bytes;
      if (bytes >= 2 * kKiB) {
        worst = std::max(worst, class_bytes / static_cast<double>(bytes) - 1);
      }
    }
  }
  state.counters["waste_percent"] = 100 * (held / requested - 1);
  state.counters["worst_percent_from_2KiB"] = 100 * worst;
}

void add_rows(const std::string& name, const Sizes& sizes) {
  const auto add = [&](const std::string& row, const std::function<void(benchmark::State&, const Sizes&)>& run) {
    benchmark::RegisterBenchmark((name + "/" + row).c_str(),
                                 [run, sizes](benchmark::State& state) { run(state, sizes); });
  };
  for (const SizeClasses classes : {SizeClasses::eighths, SizeClasses::power_of_two, SizeClasses::exact}) {
    const std::string suffix(to_string(classes));
    add("alloc_batch+reset/" + suffix, [classes](auto& state, const Sizes& all) { run_batch(state, all, classes); });
    add("alloc+reset/" + suffix, [classes](auto& state, const Sizes& all) { run_single(state, all, classes); });
  }
  add("alloc+release/eighths", run_alloc_release);
  add("MemoryPool", run_memory_pool);
  add("malloc", run_malloc);
}

void add_waste_rows(const std::string& trace_name) {
  const Sizes sizes = all_sizes(*shipped_trace(trace_name));
  for (const SizeClasses classes : {SizeClasses::eighths, SizeClasses::power_of_two}) {
    benchmark::RegisterBenchmark(("waste/" + trace_name + "/" + std::string(to_string(classes))).c_str(),
                                 [sizes, classes](benchmark::State& state) { run_waste(state, sizes, classes); })
        ->Iterations(1);
  }
}

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  try {
    tierpool::add_rows("log-uniform", tierpool::log_uniform_sizes());
    tierpool::add_rows("llama-1b-decode", tierpool::decode_sizes());
    for (const char* name : {"llama-1b-decode", "qwen3-moe-decode", "gpt2-train-varlen"}) {
      tierpool::add_waste_rows(name);
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
