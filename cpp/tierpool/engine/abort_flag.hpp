#pragma once

#include <atomic>

namespace tierpool {

/// Asked by the library that computes, between the nodes of a graph, whether to give up. Thread-safe.
class AbortFlag {
 public:
  void set() noexcept { is_set_.store(true, std::memory_order_relaxed); }
  void clear() noexcept { is_set_.store(false, std::memory_order_relaxed); }
  [[nodiscard]] bool is_set() const noexcept { return is_set_.load(std::memory_order_relaxed); }

  /// ggml's abort callback; `flag` is an AbortFlag.
  static bool should_abort(void* flag) noexcept { return static_cast<const AbortFlag*>(flag)->is_set(); }

 private:
  std::atomic<bool> is_set_{false};
};

}  // namespace tierpool
