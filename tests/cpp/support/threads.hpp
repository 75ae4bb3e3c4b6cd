#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace tierpool::testing {

/// Runs `work(0)` ... `work(count - 1)`, each on a thread of its own, and waits for all.
inline void run_threads(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < count; ++index) {
    threads.emplace_back(work, index);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace tierpool::testing
