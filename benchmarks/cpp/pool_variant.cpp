#include "pool_variant.hpp"

#include "tierpool/device/device_registry.hpp"

namespace tierpool {

std::shared_ptr<MemoryPool> make_pool(const PoolVariant& variant, std::uint64_t capacity_bytes) {
  PoolConfig config;
  config.heap_size_bytes = capacity_bytes;
  config.num_heaps = 1;
  config.warmup_bytes = {capacity_bytes};
  config.log_exhaustion = false;
  config.on_exhaustion = OnExhaustion::raise;
  variant.configure(config);
  return MemoryPool::create(config, make_device("simulated"));
}

PoolAllocator SharedPool::open(std::uint64_t capacity_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<MemoryPool> pool = pool_.lock();
  if (!pool) {
    pool = make_pool(variant_, capacity_bytes);
    pool_ = pool;
  }
  return PoolAllocator(std::move(pool));
}

}  // namespace tierpool
