#include "tierpool/pool/pool_config.hpp"

#include <array>
#include <string>

#include "tierpool/base/choice.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 2> kOnExhaustionNames = {"fallback", "raise"};

}  // namespace

std::string_view to_string(OnExhaustion on_exhaustion) noexcept {
  return kOnExhaustionNames[static_cast<std::size_t>(on_exhaustion)];
}

OnExhaustion parse_on_exhaustion(std::string_view name) {
  return static_cast<OnExhaustion>(index_of_choice("on_exhaustion", name, kOnExhaustionNames));
}

void PoolConfig::validate(const Device& device) const {
  if (!enabled) {
    return;
  }
  const auto refuse = [](const std::string& reason) {
    throw ConfigError("Failed to initialize MetalMemoryPool: " + reason);
  };
  if (heap_size_bytes < kUnitBytes) {
    refuse("heap_size_mb must be at least " + std::to_string(kUnitBytes) + " bytes, got " +
           std::to_string(heap_size_bytes) + " bytes; the default is 256 (MB)");
  }
  if (num_heaps == 0) {
    refuse("num_heaps must be at least 1, got 0; set enabled=False for a pool without heaps");
  }
  const std::uint64_t device_bytes = device.total_bytes();
  if (heap_size_bytes > device_bytes) {
    refuse("heap_size_mb is " + format_memory_size(heap_size_bytes) + ", but device '" + device.name() + "' has " +
           format_memory_size(device_bytes) + " in all; make heap_size_mb smaller");
  }
}

}  // namespace tierpool
