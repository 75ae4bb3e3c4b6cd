#pragma once

#include <chrono>
#include <cstdint>

namespace tierpool {

/// Where durations come from, so that a test can say how long something took. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  /// Nanoseconds since some moment; never goes back.
  [[nodiscard]] virtual std::uint64_t now_ns() const noexcept = 0;
};

class SteadyClock final : public Clock {
 public:
  [[nodiscard]] std::uint64_t now_ns() const noexcept override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  }
};

}  // namespace tierpool
