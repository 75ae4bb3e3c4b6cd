#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "tierpool/device/device.hpp"
#include "tierpool/pool/fallback_allocations.hpp"
#include "tierpool/pool/magazine.hpp"
#include "tierpool/pool/stream_events.hpp"
#include "tierpool/pool/stream_key.hpp"

namespace tierpool {

class MemoryPool;

/// One released allocation that streams may still use.
struct PendingRelease {
  /// That a stream used it, up to the event.
  struct Use {
    StreamKey stream;
    EventHandle event = kNoEvent;  ///< kNoEvent: to be recorded when a caller names the stream
    bool captured = false;         ///< into a graph, whose launches use the memory again and again
    bool complete = false;         ///< and its event recycled
    PendingRelease* release = nullptr;
    Use* next = nullptr;
  };

  MemoryPool* lane = nullptr;
  ParkedBlock block;                    ///< of a heap of the lane, or
  FallbackAllocations::Taken fallback;  ///< what the device served directly
  std::uint64_t block_bytes = 0;
  std::vector<Use> uses;
  std::uint32_t uses_left = 0;
  bool names_last_use = false;  ///< whether the uses are all there are, so that no work is left when they are over
  PendingRelease* next = nullptr;

  [[nodiscard]] bool is_fallback() const noexcept { return fallback.address != 0; }
  [[nodiscard]] bool is_captured() const noexcept {
    return std::any_of(uses.begin(), uses.end(), [](const Use& use) { return use.captured; });
  }
};

/// Released allocations of all lanes of a pool, until every event that stands for their uses is complete: a queue for
/// each stream, in the order of release, and another for what has no event yet. Every call needs the lock, but for
/// those that say otherwise.
class PendingReleases {
 public:
  explicit PendingReleases(StreamEvents& events) noexcept : events_(events) {}
  ~PendingReleases();
  PendingReleases(const PendingReleases&) = delete;
  PendingReleases& operator=(const PendingReleases&) = delete;

  void lock() { mutex_.lock(); }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }

  /// How many are pending: a hint without the lock.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_.load(std::memory_order_acquire); }

  /// Whether a thread is between begin_completion() and end_completion(): what it took out is counted no more, and not
  /// back yet either. A hint without the lock, with which a completion begins.
  [[nodiscard]] bool is_completing() const noexcept { return completing_.load(std::memory_order_acquire) != 0; }
  void begin_completion() noexcept { completing_.fetch_add(1, std::memory_order_acq_rel); }
  void end_completion() noexcept;
  /// Changes whenever memory has come back. Without the lock.
  [[nodiscard]] std::uint64_t epoch() const noexcept { return epoch_.load(std::memory_order_acquire); }
  void note_completed() noexcept { epoch_.fetch_add(1, std::memory_order_acq_rel); }
  /// Waits for whoever completes releases now. Whether memory has come back since the epoch was read. Without the lock.
  [[nodiscard]] bool await_completions(std::uint64_t epoch) noexcept;
  /// In the child of a fork, where those who did not come along complete nothing. With the lock held.
  void forget_completions() noexcept { completing_.store(0, std::memory_order_release); }

  /// Makes room for add(). False when there is no memory.
  [[nodiscard]] bool prepare(const PendingRelease& release) noexcept;
  void add(std::unique_ptr<PendingRelease> release) noexcept;
  /// Keeps a release of which no event tells the end, until its lane closes. It is not counted.
  void keep(std::unique_ptr<PendingRelease> release) noexcept;
  struct Complete {
    PendingRelease* first = nullptr;  ///< of a list
    bool left_fallback = false;       ///< whether what the device served directly was left, and what follows it
  };
  /// Takes out those whose events are all complete; no event is waited for. Events are recorded on lasting streams and
  /// on the one that the caller names, if any.
  [[nodiscard]] Complete take_complete(const StreamKey* named, bool with_fallbacks) noexcept;
  /// Takes out all of a lane, complete or not; without what the device served directly, unless asked for.
  [[nodiscard]] PendingRelease* take_all_of(const MemoryPool& lane, bool with_fallbacks) noexcept;
  /// Takes out what is kept of a lane, and puts it before `list`.
  [[nodiscard]] PendingRelease* take_kept_of(const MemoryPool& lane, PendingRelease* list) noexcept;

 private:
  struct Queue {
    StreamKey stream;
    bool has_events = false;  // else its uses wait for someone to name the stream
    PendingRelease::Use* first = nullptr;
    PendingRelease::Use* last = nullptr;
  };

  [[nodiscard]] Queue* find(const PendingRelease::Use& use) noexcept;
  [[nodiscard]] bool is_complete(PendingRelease::Use& use, const StreamKey* named) noexcept;

  StreamEvents& events_;
  std::mutex mutex_;
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint32_t> completing_{0};
  std::atomic<std::uint32_t> completions_ended_{0};
  std::atomic<std::uint64_t> epoch_{0};
  std::vector<Queue> queues_;
  PendingRelease* kept_ = nullptr;
};

}  // namespace tierpool
