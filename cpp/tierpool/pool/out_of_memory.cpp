#include "tierpool/pool/out_of_memory.hpp"

#include <array>
#include <cstdio>
#include <string>

#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

std::string state(std::uint64_t bytes, const PoolStatistics& now) {
  std::array<char, 16> percent{};
  std::snprintf(percent.data(), percent.size(), "%.1f%%", 100 * now.fragmentation());
  return "requested " + std::to_string(bytes) + " bytes (" + format_memory_size(bytes) + "), largest free block " +
         format_memory_size(now.largest_free_bytes) + ", free " + format_memory_size(now.free_bytes) +
         ", fragmentation " + percent.data();
}

/// What the device itself has left, where it was asked and refused.
struct DeviceState {
  std::uint64_t free_bytes = 0;
  std::string text;  ///< empty where it was not asked or does not tell
};

DeviceState device_state(std::uint64_t bytes, const PoolStatistics& now, const PoolConfig& config,
                         const Device& device) {
  // A heap with room for it lacks only memory behind its addresses.
  const bool refused = config.on_exhaustion == OnExhaustion::fallback || now.largest_free_bytes >= bytes;
  if (!refused) {
    return {};
  }
  try {
    const std::uint64_t free_bytes = device.free_bytes();
    return {free_bytes, "; device '" + device.name() + "' has " + format_memory_size(free_bytes) + " free of " +
                            format_memory_size(device.total_bytes())};
  } catch (const DeviceError&) {
    return {};  // the fault says why
  }
}

std::string remedy(std::uint64_t bytes, const DeviceState& state, const PoolConfig& config, const Device& device) {
  if (!state.text.empty() && bytes > device.total_bytes()) {
    return "ask for less than the device has in all";
  }
  if (!state.text.empty() && bytes > state.free_bytes) {
    return "release buffers, or what else holds memory of the device";
  }
  const std::string enlarge = bytes > config.heap_size_bytes ? "no heap can hold it: set heap_size_mb above the request"
                                                             : "increase heap_size_mb or num_heaps, or release buffers";
  return enlarge + (config.on_exhaustion == OnExhaustion::raise
                        ? ", or set on_exhaustion='fallback'"
                        : " (device '" + device.name() + "' could not serve it directly either)");
}

std::string remedy_without_heaps(const Device& device) {
  return "device '" + device.name() +
         "' has no virtual memory management, so that only the default stream has heaps: allocate on it, or set "
         "on_exhaustion='fallback'";
}

std::string remedy_over_limit(const PoolStatistics& now, const PoolConfig& config) {
  const std::uint64_t pending_bytes = now.pending_bytes + now.fallback_pending_bytes;
  return format_memory_size(now.used_bytes + now.fallback_used_bytes + pending_bytes) + " of max_bytes " +
         format_memory_size(*config.max_bytes) + " are in use: raise max_bytes or release buffers";
}

// A context that is gone, for one, refuses every call: no heap size helps then.
std::string fault_of(const Device& device) {
  const std::string fault = device.fault();
  return fault.empty() ? fault : "; what the device refused last was for no shortage: " + fault;
}

}  // namespace

OutOfMemoryError out_of_memory_error(std::uint64_t bytes, Shortage shortage, const PoolStatistics& now,
                                     const PoolConfig& config, const Device& device) {
  DeviceState left;
  std::string advice;
  switch (shortage) {
    case Shortage::memory:
      left = device_state(bytes, now, config, device);
      advice = remedy(bytes, left, config, device);
      break;
    case Shortage::limit:
      advice = remedy_over_limit(now, config);
      break;
    case Shortage::heaps:
      advice = remedy_without_heaps(device);
      break;
  }
  return {"out of memory: " + state(bytes, now) + left.text + "; " + advice + fault_of(device),
          {bytes, now.largest_free_bytes, now.free_bytes, now.fragmentation()}};
}

}  // namespace tierpool
