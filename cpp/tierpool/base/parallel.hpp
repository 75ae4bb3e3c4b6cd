#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <functional>
#include <thread>

namespace tierpool {

/// The most threads that one call uses. Moving and clearing bytes is bound by memory bandwidth from there.
constexpr std::size_t kMaxParallel = 16;

/// Runs `work`, which must not throw, on up to `threads` threads at once, the calling one among them; returns when all
/// have ended. Where a thread or memory for one is missing, fewer do the work.
template <typename Work>
void run_in_parallel(std::size_t threads, const Work& work) noexcept {
  std::array<std::thread, kMaxParallel> started;
  try {
    for (std::size_t i = 1; i < threads && i < kMaxParallel; ++i) {
      started[i] = std::thread(std::cref(work));
    }
  } catch (const std::exception&) {
    // Those that run, and this one, do the work.
  }
  work();
  for (std::thread& thread : started) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

}  // namespace tierpool
