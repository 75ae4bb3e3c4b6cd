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

std::string remedy(std::uint64_t bytes, bool over_limit, const PoolStatistics& now, const PoolConfig& config,
                   const Device& device) {
  if (over_limit) {
    return format_memory_size(now.used_bytes + now.fallback_used_bytes) + " of max_bytes " +
           format_memory_size(*config.max_bytes) + " are in use: raise max_bytes or release buffers";
  }
  const std::string enlarge = bytes > config.heap_size_bytes ? "no heap can hold it: set heap_size_mb above the request"
                                                             : "increase heap_size_mb or num_heaps, or release buffers";
  return enlarge + (config.on_exhaustion == OnExhaustion::raise
                        ? ", or set on_exhaustion='fallback'"
                        : " (device '" + device.name() + "' could not serve it directly either)");
}

// A context that is gone, for one, refuses every call: no heap size helps then.
std::string fault_of(const Device& device) {
  const std::string fault = device.fault();
  return fault.empty() ? fault : "; what the device refused last was for no shortage: " + fault;
}

}  // namespace

OutOfMemoryError out_of_memory_error(std::uint64_t bytes, bool over_limit, const PoolStatistics& now,
                                     const PoolConfig& config, const Device& device) {
  return {
      "out of memory: " + state(bytes, now) + "; " + remedy(bytes, over_limit, now, config, device) + fault_of(device),
      {bytes, now.largest_free_bytes, now.free_bytes, now.fragmentation()}};
}

}  // namespace tierpool
