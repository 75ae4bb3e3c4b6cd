// The pool's hot paths, a given number of times each, for counting instructions: `hot_paths PATH PAIRS`. Everything
// around the pairs costs the same for any number of them, so that two runs tell what one pair takes.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pool_variant.hpp"
#include "request_sizes.hpp"
#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kCapacityBytes = kGiB;
constexpr std::uint64_t kFixedBytes = 64 * kKiB;
constexpr SizeRange kSizes = {256, kMiB};
constexpr std::size_t kBatchCount = 1'750;
constexpr std::uint32_t kLiveCount = 1'000;

void run_fixed(MemoryPool& pool, std::uint64_t pairs) {
  for (std::uint64_t pair = 0; pair < pairs; ++pair) {
    Allocation allocation;
    static_cast<void>(pool.serve(kFixedBytes, allocation));
    static_cast<void>(pool.release(allocation));
  }
}

/// Whole batches: allocates all sizes, then releases them in the same order.
void run_batch(MemoryPool& pool, std::uint64_t pairs) {
  const std::vector<std::uint64_t> sizes = draw_sizes(kBatchCount, kSizes);
  std::vector<Allocation> live(sizes.size());
  for (std::uint64_t batch = 0; batch < pairs / kBatchCount; ++batch) {
    for (std::size_t index = 0; index < sizes.size(); ++index) {
      static_cast<void>(pool.serve(sizes[index], live[index]));
    }
    for (const Allocation& allocation : live) {
      static_cast<void>(pool.release(allocation));
    }
  }
}

/// The same in one call each way.
void run_batch_call(MemoryPool& pool, std::uint64_t pairs) {
  const std::vector<std::uint64_t> sizes = draw_sizes(kBatchCount, kSizes);
  for (std::uint64_t batch = 0; batch < pairs / kBatchCount; ++batch) {
    pool.release_batch(pool.allocate_batch(sizes));
  }
}

void run_churn(MemoryPool& pool, std::uint64_t pairs) {
  const std::vector<ChurnStep> steps = draw_churn(1 << 14, kLiveCount, kSizes);
  std::vector<Allocation> live(kLiveCount);
  for (std::uint64_t pair = 0; pair < pairs; ++pair) {
    const ChurnStep& step = steps[pair % steps.size()];
    static_cast<void>(pool.release(live[step.slot]));  // an empty one is refused
    static_cast<void>(pool.serve(step.bytes, live[step.slot]));
  }
  for (const Allocation& allocation : live) {
    static_cast<void>(pool.release(allocation));
  }
}

/// An array's way: freed by its address alone.
void run_array(MemoryPool& pool, std::uint64_t pairs) {
  for (std::uint64_t pair = 0; pair < pairs; ++pair) {
    Allocation allocation;
    static_cast<void>(pool.serve({.bytes = kFixedBytes, .holder = Holder::array}, allocation));
    static_cast<void>(pool.release(pool.find_array(allocation.address)));
  }
}

void run_failing(MemoryPool& pool, std::uint64_t pairs) {
  for (std::uint64_t pair = 0; pair < pairs; ++pair) {
    Allocation allocation;
    static_cast<void>(pool.serve({.bytes = 2 * kCapacityBytes, .heaps_only = true}, allocation));
  }
}

struct Path {
  std::string_view name;
  void (*run)(MemoryPool&, std::uint64_t pairs);
  const PoolVariant& variant = kPoolVariants[0];
};

constexpr std::array kPaths = {Path{"fixed-64KiB", run_fixed},
                               Path{"batch-1750-256B-1MiB", run_batch},
                               Path{"batch-call-1750-256B-1MiB", run_batch_call},
                               Path{"churn-256B-1MiB", run_churn},
                               Path{"churn-256B-1MiB-magazines-off", run_churn, kPoolVariants[1]},
                               Path{"array-64KiB", run_array},
                               Path{"array-64KiB-magazines-off", run_array, kPoolVariants[1]},
                               Path{"failing-above-heap", run_failing}};

}  // namespace
}  // namespace tierpool

int main(int argc, char** argv) {
  using namespace tierpool;
  if (argc == 3) {
    for (const Path& path : kPaths) {
      if (path.name == argv[1]) {
        const std::shared_ptr<MemoryPool> pool = make_pool(path.variant, kCapacityBytes);
        path.run(*pool, std::strtoull(argv[2], nullptr, 10));
        return 0;
      }
    }
  }
  std::cerr << "usage: hot_paths PATH PAIRS; a PATH is one of";
  for (const Path& path : kPaths) {
    std::cerr << ' ' << path.name;
  }
  std::cerr << '\n';
  return 1;
}
