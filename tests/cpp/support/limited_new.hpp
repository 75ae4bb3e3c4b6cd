#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

/// Replaces the global operator new, so that a test can let it fail. To be included by one file of an executable.
namespace tierpool::testing {

inline constexpr std::int64_t kUnlimited = -1;
/// How many more allocations work; each one behind them fails.
inline std::atomic<std::int64_t> allocations_left{kUnlimited};

/// Takes one allocation from what is left.
[[nodiscard]] inline bool may_allocate() noexcept {
  std::int64_t left = allocations_left.load(std::memory_order_relaxed);
  while (left > 0 && !allocations_left.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
  }
  return left != 0;
}

}  // namespace tierpool::testing

// Not inlined, or the compiler takes malloc and operator delete for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  void* pointer = tierpool::testing::may_allocate() ? std::malloc(bytes == 0 ? 1 : bytes) : nullptr;
  if (pointer == nullptr) {
    throw std::bad_alloc();
  }
  return pointer;
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  return tierpool::testing::may_allocate() ? std::malloc(bytes == 0 ? 1 : bytes) : nullptr;
}
[[gnu::noinline]] void operator delete(void* pointer) noexcept { std::free(pointer); }
[[gnu::noinline]] void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }
