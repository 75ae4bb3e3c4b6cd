#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/pool/byte_limit.hpp"
#include "tierpool/pool/device_memory.hpp"
#include "tierpool/pool/heap.hpp"
#include "tierpool/pool/pending_releases.hpp"
#include "tierpool/pool/stream_events.hpp"
#include "tierpool/pool/stream_key.hpp"

namespace tierpool {

class MemoryPool;

/// The lanes of a pool, one for each stream that allocates, and what they share. A lane is a pool itself, with heaps of
/// its own over addresses of its own, and orders what it hands out by its stream alone: what is released on that stream
/// is free at once. The pool that the user built is the home lane, of the default stream or, where the processor
/// reaches the memory, of no stream.
///
/// Thread-safe. Locks: this < pending < whatever a pool locks.
class StreamLanes {
 public:
  /// `home` and `device` outlive every call but those of the members below.
  StreamLanes(MemoryPool& home, Device& device, std::optional<std::uint64_t> max_bytes,
              std::optional<std::uint64_t> commit_limit_bytes);
  ~StreamLanes() = default;
  StreamLanes(const StreamLanes&) = delete;
  StreamLanes& operator=(const StreamLanes&) = delete;

  // Shared by all lanes; each is thread-safe.
  UsedBytes used;          ///< from heaps, by counted live blocks and parked ones
  DeviceMemory memory;     ///< of all heaps and outside them
  ByteLimit limit;         ///< on what is live or pending
  ByteLimit commit_limit;  ///< on whole granules committed
  StreamEvents events;
  PendingReleases pending;

  [[nodiscard]] MemoryPool& home() const noexcept { return home_; }
  /// The lane of a stream; nullptr when it has none.
  [[nodiscard]] MemoryPool* find(const StreamKey& stream) noexcept;
  /// The lane that an address, or a fallback array there, is of; the home lane for any other.
  [[nodiscard]] MemoryPool& find_at(std::uint64_t address) noexcept;
  /// Makes `lane` the stream's, unless another thread came first; returns the stream's. nullptr when there is no memory
  /// or the lanes have ended.
  [[nodiscard]] MemoryPool* add(const StreamKey& stream, std::shared_ptr<MemoryPool> lane) noexcept;
  /// The home lane and the others, in the order in which they were made; `last` adds no more. Throws std::bad_alloc.
  [[nodiscard]] std::vector<MemoryPool*> all(bool last);
  /// Whether there is any but the home lane: a hint.
  [[nodiscard]] bool are_several() const noexcept { return are_several_.load(std::memory_order_acquire); }
  /// Lets go of every lane but the home lane; no more are added.
  void end() noexcept;

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  /// All lanes but the home lane, in order. With the lock held.
  [[nodiscard]] const std::vector<std::shared_ptr<MemoryPool>>& further() const noexcept { return lanes_; }

 private:
  MemoryPool& home_;
  const std::uint64_t id_;  // never used twice
  std::atomic<bool> are_several_{false};
  std::mutex mutex_;  // guards all below
  std::vector<std::shared_ptr<MemoryPool>> lanes_;
  bool ended_ = false;
  ForkHandler fork_handler_;  // last: it locks what stands above
};

}  // namespace tierpool
