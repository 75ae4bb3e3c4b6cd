#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "tierpool/device/simulated_device.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::testing {

/// What the memory of a simulated device would hold: work on streams writes a tag into pages of it and later looks
/// whether the tag is still there. Thread-safe.
class StreamMemory {
 public:
  static constexpr std::uint64_t kPageBytes = 4096;

  explicit StreamMemory(SimulatedDevice& device) : device_(device), scratch_(device.allocate_direct(1 << 20, 256)) {}
  ~StreamMemory() { device_.free_direct(scratch_.address, 1 << 20, 256); }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;

  /// Has a stream write the tag all over an allocation, when its turn comes.
  void write(StreamHandle stream, const Allocation& allocation, std::uint64_t tag) {
    streams().enqueue(stream, [this, allocation, tag] {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (std::uint64_t page = first(allocation); page < end(allocation); ++page) {
        tags_[page] = tag;
      }
    });
  }
  /// Has a stream see whether the tag is still there, in memory that is committed.
  void check(StreamHandle stream, const Allocation& allocation, std::uint64_t tag) {
    streams().enqueue(stream, [this, allocation, tag] {
      device_.copy(scratch_.address, allocation.address, allocation.requested_bytes);
      const std::lock_guard<std::mutex> lock(mutex_);
      for (std::uint64_t page = first(allocation); page < end(allocation); ++page) {
        corrupted_ += tags_[page] == tag ? 0 : 1;
      }
      ++checked_;
    });
  }
  /// Lets the later work of one stream begin behind the present work of another, as a program does with an event.
  void order(StreamHandle later, StreamHandle earlier) {
    const EventHandle event = streams().create_event();
    static_cast<void>(streams().record_event(event, earlier));
    static_cast<void>(streams().wait_event(later, event));
    streams().destroy_event(event);
  }

  [[nodiscard]] std::uint64_t corrupted() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return corrupted_;
  }
  [[nodiscard]] std::uint64_t checked() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return checked_;
  }

 private:
  [[nodiscard]] SimulatedStreams& streams() { return device_.simulated_streams(); }
  [[nodiscard]] static std::uint64_t first(const Allocation& allocation) { return allocation.address / kPageBytes; }
  [[nodiscard]] static std::uint64_t end(const Allocation& allocation) {
    return (allocation.address + allocation.requested_bytes) / kPageBytes;
  }

  SimulatedDevice& device_;
  const DirectAllocation scratch_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::uint64_t> tags_;  // by page
  std::uint64_t corrupted_ = 0;
  std::uint64_t checked_ = 0;
};

}  // namespace tierpool::testing
