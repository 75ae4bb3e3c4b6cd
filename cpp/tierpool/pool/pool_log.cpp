#include "tierpool/pool/pool_log.hpp"

#include <chrono>
#include <new>

#include "tierpool/base/logging.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::int64_t kExhaustionIntervalNs = 1'000'000'000;

std::int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

bool PoolLog::exhaustion_is_due() noexcept {
  if (!exhaustion_enabled_) {
    return false;
  }
  const std::int64_t now = now_ns();
  std::int64_t due = next_exhaustion_ns_.load(std::memory_order_relaxed);
  return now >= due && next_exhaustion_ns_.compare_exchange_strong(due, now + kExhaustionIntervalNs);
}

void PoolLog::exhaustion(std::uint64_t bytes, bool falls_back, std::uint64_t fallback_allocations) noexcept {
  try {
    log(LogLevel::warning, "MetalMemoryPool: Heap exhausted for " + format_memory_size(bytes) + " allocation" +
                               (falls_back ? ", falling back to device allocation" : ""));
    log(LogLevel::info, "MetalMemoryPool: Consider increasing heap_size_mb or num_heaps");
    if (exhaustion_was_logged_.exchange(true)) {
      log(LogLevel::warning, "MetalMemoryPool: Fallback allocation count: " + std::to_string(fallback_allocations));
    }
  } catch (const std::bad_alloc&) {
    log(LogLevel::warning, "MetalMemoryPool: Heap exhausted, and no memory left to say for which size");
  }
}

void PoolLog::creation_failed() { log(LogLevel::error, "MetalMemoryPool: Failed to create MTLHeap (out of memory)"); }

void PoolLog::warmup_size_skipped(std::uint64_t bytes, std::uint64_t heap_bytes, bool size_is_default) {
  log(size_is_default ? LogLevel::info : LogLevel::warning, "MetalMemoryPool: Warmup size " +
                                                                format_memory_size(bytes) + " exceeds heap size " +
                                                                format_memory_size(heap_bytes) + ", skipped");
}

void PoolLog::trim_refused(const std::string& device_name) {
  log(LogLevel::warning, "MetalMemoryPool: Device '" + device_name + "' kept some memory that trim gave back");
}

void PoolLog::memory_kept(std::uint64_t bytes) noexcept {
  try {
    log(LogLevel::warning, "MetalMemoryPool: Kept " + format_memory_size(bytes) +
                               " for good: the device cannot tell whether its streams have done with it; close the "
                               "pool when no stream is being captured");
  } catch (const std::bad_alloc&) {
    log(LogLevel::warning, "MetalMemoryPool: Kept memory for good that streams may still use");
  }
}

void PoolLog::close(const LeakReport& report) {
  if (report.live_arrays != 0) {
    log(LogLevel::info, "MetalMemoryPool: Closed with " + std::to_string(report.live_arrays) + " live arrays of " +
                            format_memory_size(report.live_array_bytes) + "; each keeps its memory until it goes");
  }
  if (report.leaked_buffers == 0) {
    return;
  }
  log(LogLevel::error, "MetalMemoryPool: Memory leak detected!");
  log(LogLevel::error, "MetalMemoryPool: Acquired: " + std::to_string(report.acquired) +
                           ", Released: " + std::to_string(report.released) +
                           ", Leaked: " + std::to_string(report.leaked_buffers) + " buffers");
  log(LogLevel::error, "MetalMemoryPool: Leaked: " + format_memory_size(report.leaked_bytes) +
                           (report.origins_known ? "" : "; set track_origins=True to see where they were allocated"));
  for (const std::string& origin : report.origins) {
    log(LogLevel::error, "MetalMemoryPool: Leaked: allocated at " + origin);
  }
}

}  // namespace tierpool
