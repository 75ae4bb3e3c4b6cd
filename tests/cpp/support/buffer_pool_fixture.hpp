#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/simulated_device.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::testing {

/// A device as the source of a buffer pool: every fresh buffer is a direct allocation.
inline std::shared_ptr<MemoryPool> bare(std::shared_ptr<Device> device) {
  PoolConfig config;
  config.enabled = false;
  return MemoryPool::create(config, std::move(device));
}

inline BufferPoolConfig with_size_classes(SizeClasses size_classes) {
  BufferPoolConfig config;
  config.size_classes = size_classes;
  return config;
}

inline std::vector<Lease> alloc_batch(BufferPool& pool, const std::vector<std::uint64_t>& sizes) {
  std::vector<Lease> leases(sizes.size());
  pool.alloc_batch(sizes, leases);
  return leases;
}

/// Buffers of a simulated device, whose books say what the pool holds.
struct SimulatedArena {
  explicit SimulatedArena(const BufferPoolConfig& config = {}, std::uint64_t device_bytes = 1024 * kGiB)
      : device(std::make_shared<SimulatedDevice>(device_bytes)),
        pool(std::make_unique<BufferPool>(config, bare(device))) {}

  [[nodiscard]] std::uint64_t fresh_calls() const { return device->call_count(DeviceCall::allocate_direct); }

  std::shared_ptr<SimulatedDevice> device;
  std::unique_ptr<BufferPool> pool;
};

/// Work in flight that is done when the test says so.
class FakeEvent final : public CompletionEvent {
 public:
  [[nodiscard]] bool is_complete() noexcept override {
    ++polls;
    return complete;
  }
  void wait() noexcept override {
    ++waits;
    complete = !gives_up;
  }

  std::atomic<bool> complete{false};
  std::atomic<bool> gives_up{false};
  std::atomic<int> polls{0};
  std::atomic<int> waits{0};
};

}  // namespace tierpool::testing
