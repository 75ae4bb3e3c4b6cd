#include "tierpool/pool/device_memory.hpp"

namespace tierpool {

void DeviceMemory::reset() noexcept {
  bytes.reset_peak();
  allocations_.store(0, std::memory_order_relaxed);
  frees_.store(0, std::memory_order_relaxed);
}

}  // namespace tierpool
