#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tierpool/pool/stream_key.hpp"

namespace tierpool {

/// Which streams, besides the one it was allocated for, use a live allocation: by address. Thread-safe.
class RecordedStreams {
 public:
  /// False when there is no memory to remember it; then whoever releases has to wait for the whole device.
  [[nodiscard]] bool add(std::uint64_t address, const StreamKey& stream) noexcept;
  /// What was recorded; forgotten with this.
  [[nodiscard]] std::vector<StreamKey> take(std::uint64_t address) noexcept;
  [[nodiscard]] bool contains(std::uint64_t address) noexcept {
    return count_.load(std::memory_order_acquire) != 0 && find(address);
  }

  /// Held over fork.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  [[nodiscard]] bool find(std::uint64_t address) noexcept;

  std::atomic<std::uint64_t> count_{0};  // lets contains() answer without the lock while there is nothing
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::vector<StreamKey>> streams_;
};

}  // namespace tierpool
