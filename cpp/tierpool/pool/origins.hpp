#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tierpool/pool/allocation.hpp"

namespace tierpool {

/// Where live allocations came from, for the leak report. Switched off, every call does nothing. Thread-safe.
class Origins {
 public:
  explicit Origins(bool enabled) noexcept : enabled_(enabled) {}

  [[nodiscard]] bool enabled() const noexcept { return enabled_; }
  void set(const Allocation& allocation, std::string text);
  /// A stale handle does not wipe out the origin of whoever has its address now.
  void forget(const Allocation& allocation) noexcept {
    if (enabled_) [[unlikely]] {
      erase(allocation);
    }
  }
  /// All texts, sorted.
  [[nodiscard]] std::vector<std::string> texts() const;

  /// Held over fork.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Origin {
    std::uint32_t node = kNoNode;
    std::uint32_t generation = 0;
    std::string text;
  };

  void erase(const Allocation& allocation) noexcept;

  const bool enabled_;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, Origin> by_address_;
};

}  // namespace tierpool
