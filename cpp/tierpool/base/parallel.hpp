#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
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

/// Calls `work(offset, length)` for the pieces of a range, in order, on up to `threads` threads at once. Throws what
/// the first piece to fail threw, when all threads have ended; no piece is begun after it.
template <typename Work>
void for_each_piece(std::uint64_t bytes, std::uint64_t piece_bytes, std::size_t threads, const Work& work) {
  std::atomic<std::uint64_t> next_offset{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;  // of the thread that set `failed`
  const auto work_on = [&]() noexcept {
    try {
      while (!failed) {
        const std::uint64_t offset = next_offset.fetch_add(piece_bytes);
        if (offset >= bytes) {
          return;
        }
        work(offset, std::min(piece_bytes, bytes - offset));
      }
    } catch (...) {
      if (!failed.exchange(true)) {
        failure = std::current_exception();
      }
    }
  };
  run_in_parallel(std::min<std::uint64_t>(threads, (bytes + piece_bytes - 1) / piece_bytes), work_on);
  if (failure != nullptr) {
    std::rethrow_exception(failure);
  }
}

}  // namespace tierpool
