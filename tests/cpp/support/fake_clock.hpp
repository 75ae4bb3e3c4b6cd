#pragma once

#include <atomic>
#include <cstdint>

#include "tierpool/base/clock.hpp"

namespace tierpool::testing {

/// Time that passes only when a test says so.
class FakeClock final : public Clock {
 public:
  [[nodiscard]] std::uint64_t now_ns() const noexcept override { return now_ns_.load(); }
  void advance(std::uint64_t ns) { now_ns_.fetch_add(ns); }

 private:
  std::atomic<std::uint64_t> now_ns_{0};
};

}  // namespace tierpool::testing
