#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace tierpool {

/// What is still live when a pool closes.
struct LeakReport {
  std::uint64_t acquired = 0;
  std::uint64_t released = 0;
  std::uint64_t leaked_buffers = 0;
  std::uint64_t leaked_bytes = 0;
  std::uint64_t live_arrays = 0;
  std::uint64_t live_array_bytes = 0;
  bool origins_known = false;
  std::vector<std::string> origins;
};

/// The lines a pool writes, in the words of the guide. Call with no lock held; thread-safe.
class PoolLog {
 public:
  explicit PoolLog(bool exhaustion_enabled) noexcept : exhaustion_enabled_(exhaustion_enabled) {}

  /// At most once a second, the first time at once; from the second time on with the fallbacks so far.
  [[nodiscard]] bool exhaustion_is_due() noexcept;
  void exhaustion(std::uint64_t bytes, bool falls_back, std::uint64_t fallback_allocations) noexcept;

  static void creation_failed();
  static void warmup_size_skipped(std::uint64_t bytes, std::uint64_t heap_bytes, bool size_is_default);
  static void trim_refused(const std::string& device_name);
  /// Of memory that is never used again: no one can tell when a device has done with it.
  static void memory_kept(std::uint64_t bytes) noexcept;
  /// Arrays at INFO, as arrays; buffers as leaks; nothing when nothing is live.
  static void close(const LeakReport& report);

 private:
  const bool exhaustion_enabled_;
  std::atomic<std::int64_t> next_exhaustion_ns_{0};
  std::atomic<bool> exhaustion_was_logged_{false};
};

}  // namespace tierpool
