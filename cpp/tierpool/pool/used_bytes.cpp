#include "tierpool/pool/used_bytes.hpp"

namespace tierpool {

void UsedBytes::raise_peak(std::uint64_t used) noexcept {
  std::uint64_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < used && !peak_.compare_exchange_weak(peak, used, std::memory_order_relaxed)) {
  }
}

void UsedBytes::add(std::uint64_t bytes) noexcept {
  raise_peak(used_.fetch_add(bytes, std::memory_order_relaxed) + bytes);
  if (whole_ != nullptr) {
    whole_->add(bytes);
  }
}

void UsedBytes::subtract(std::uint64_t bytes) noexcept {
  used_.fetch_sub(bytes, std::memory_order_relaxed);
  if (whole_ != nullptr) {
    whole_->subtract(bytes);
  }
}

std::uint64_t UsedBytes::used() noexcept {
  const std::uint64_t used = used_.load(std::memory_order_relaxed);
  // A thread in add() may not have raised the peak yet; what a snapshot has shown must stay below it for good.
  raise_peak(used);
  return used;
}

void UsedBytes::reset_peak() noexcept {
  peak_.store(0, std::memory_order_relaxed);
  raise_peak(used_.load(std::memory_order_relaxed));
}

}  // namespace tierpool
