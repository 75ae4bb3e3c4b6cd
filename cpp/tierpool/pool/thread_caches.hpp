#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tierpool/pool/thread_cache.hpp"

namespace tierpool {

/// The thread caches of one pool: finds the calling thread's, takes back what a thread leaves behind at its end, and
/// stops them all for a moment where a whole picture is needed. Every call is thread-safe.
class ThreadCaches {
 public:
  /// `give_back` may take the locks of heaps, which are therefore never held when a cache is locked.
  ThreadCaches(const MagazineLayout& layout, const MagazineLimits& limits, std::size_t heap_count,
               ThreadCache::GiveBack give_back);
  ~ThreadCaches();
  ThreadCaches(const ThreadCaches&) = delete;
  ThreadCaches& operator=(const ThreadCaches&) = delete;

  /// For the hot path: whether the pool with that id is the one this thread used last, and its cache there.
  [[nodiscard]] static bool is_current(std::uint64_t id) noexcept { return last_used.id == id; }
  [[nodiscard]] static ThreadCache& current_cache() noexcept { return *last_used.cache; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

  /// The calling thread's cache, made when it has none; nullptr when there is no memory for one.
  [[nodiscard]] ThreadCache* current() noexcept {
    return last_used.id == id_ ? last_used.cache : find_or_add_current();
  }

  /// Whether any magazine has places; nothing is parked where none has.
  [[nodiscard]] bool may_hold_blocks() const noexcept { return may_hold_blocks_.load(std::memory_order_acquire); }
  /// To be called under a cache's lock when a magazine of it gets places.
  void note_places() noexcept { may_hold_blocks_.store(true, std::memory_order_release); }

  /// Gives everything parked back to the heaps. Returns how many blocks that was.
  std::size_t flush() noexcept;
  /// As flush(), and nothing is parked any more from here on.
  void disable() noexcept;

  /// Holds every cache of the pool still, so that their contents and the heaps' agree.
  class Standstill {
   public:
    explicit Standstill(ThreadCaches& caches) noexcept;
    ~Standstill();
    Standstill(const Standstill&) = delete;
    Standstill& operator=(const Standstill&) = delete;

    /// Event counters of all threads, those that ended included, by heap.
    [[nodiscard]] std::vector<EventCounters> counters() const;
    /// What is parked, by heap.
    [[nodiscard]] std::vector<ParkedTotals> parked() const;
    void forget_largest_requests() const noexcept;

   private:
    ThreadCaches& caches_;
  };

  /// Over fork: stops every cache before; in the child, the caches of threads that did not come along are emptied.
  void before_fork();
  void after_fork_in_parent();
  void after_fork_in_child();

 private:
  friend class ThreadEnd;

  static constexpr std::uint64_t kNoPool = 0;
  static constexpr std::uint64_t kThreadEnded = UINT64_MAX;

  struct Current {
    std::uint64_t id;
    ThreadCache* cache;
  };

  [[nodiscard]] ThreadCache* find_or_add_current() noexcept;
  [[nodiscard]] ThreadCache* add_current();
  /// Ends the cache of a thread that is no more; with mutex_ held.
  void retire(const ThreadCache* cache) noexcept;
  void share_limit() noexcept;
  void stop_all() noexcept;
  void resume_all() noexcept;

  // The pool this thread used last. Plain data in the static block, so that reading it is one instruction.
  static thread_local constinit Current last_used __attribute__((tls_model("initial-exec")));

  const std::uint64_t id_;  // never used twice, so that a thread never takes an ended pool's cache for this one's
  const MagazineLayout layout_;
  const MagazineLimits limits_;
  const std::size_t heap_count_;
  const ThreadCache::GiveBack give_back_;
  std::atomic<bool> may_hold_blocks_{false};
  std::atomic<std::uint32_t> next_lane_{0};

  std::mutex mutex_;  // guards all below; taken before any cache's lock
  std::vector<std::unique_ptr<ThreadCache>> caches_;
  std::vector<EventCounters> retired_counters_;
  bool enabled_ = true;
};

}  // namespace tierpool
