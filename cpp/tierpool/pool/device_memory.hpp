#pragma once

#include <atomic>
#include <cstdint>

#include "tierpool/pool/used_bytes.hpp"

namespace tierpool {

/// What a pool holds of its device, in heaps and outside, and how often it asked. Thread-safe.
class DeviceMemory {
 public:
  UsedBytes bytes;  ///< whole granules of heaps, and allocations outside them

  void took(std::uint64_t taken_bytes) noexcept {
    bytes.add(taken_bytes);
    allocations_.fetch_add(1, std::memory_order_relaxed);
  }
  void gave_back(std::uint64_t given_bytes) noexcept {
    bytes.subtract(given_bytes);
    frees_.fetch_add(1, std::memory_order_relaxed);
  }
  /// Calls since reset.
  [[nodiscard]] std::uint64_t allocations() const noexcept { return allocations_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t frees() const noexcept { return frees_.load(std::memory_order_relaxed); }
  void reset() noexcept;

 private:
  std::atomic<std::uint64_t> allocations_{0};
  std::atomic<std::uint64_t> frees_{0};
};

}  // namespace tierpool
