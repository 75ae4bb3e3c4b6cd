#pragma once

#include <atomic>
#include <cstdint>

namespace tierpool {

/// Names the calling thread: from 1 up, and never again, as the system's own thread ids are. Thread-safe.
[[nodiscard]] inline std::uint64_t thread_number() noexcept {
  static std::atomic<std::uint64_t> last_number{0};
  thread_local const std::uint64_t number = last_number.fetch_add(1, std::memory_order_relaxed) + 1;
  return number;
}

}  // namespace tierpool
