#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/byte_limit.hpp"
#include "tierpool/pool/fallback_allocations.hpp"
#include "tierpool/pool/heap.hpp"
#include "tierpool/pool/origins.hpp"
#include "tierpool/pool/pool_config.hpp"
#include "tierpool/pool/pool_log.hpp"
#include "tierpool/pool/pool_statistics.hpp"
#include "tierpool/pool/recorded_streams.hpp"
#include "tierpool/pool/stream_lanes.hpp"
#include "tierpool/pool/stream_tail.hpp"
#include "tierpool/pool/thread_caches.hpp"

namespace tierpool {

/// What a caller asks of a pool.
struct AllocationRequest {
  std::uint64_t bytes = 0;
  std::uint64_t alignment_bytes = kUnitBytes;
  Holder holder = Holder::buffer;
  bool heaps_only = false;  ///< no fallback, whatever the configuration says
  bool may_block = true;    ///< whether to wait for the device when memory is committed, taken from it or goes back
  bool may_log = true;      ///< whether to say when no heap could serve
};

enum class AllocationOutcome {
  served,
  out_of_memory,
  over_limit,   ///< max_bytes would be exceeded
  would_block,  ///< only with may_block off; nothing has changed, not even a counter
  closed,
  capturing,   ///< only of lane(): its stream is being captured into a graph
  no_streams,  ///< only of lane(): the device has none, or not this one
};

struct WarmupReport {
  std::uint64_t warm_bytes = 0;       ///< asked to be warm, over all heaps
  std::uint64_t committed_bytes = 0;  ///< newly committed by this call, in whole granules
  double milliseconds = 0.0;
};

/// Told the bytes done and the bytes to do; called with no lock held, may throw.
using WarmupProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

/// Heaps, the strategy that picks one, magazines in front of them, fallback to the device, and statistics.
///
/// Every call is thread-safe. Allocations may be released from any thread, also after close(); whoever holds one also
/// holds the pool. One allocation is not to be released by two threads at once. Records are logged with no lock held.
/// Safe over fork. In a child whose device does not survive it, new work is refused by DeviceError; what is live may be
/// released.
class MemoryPool {
 public:
  /// Reserves the heaps and warms them up. Throws ConfigError, InitializationError.
  ///
  /// The pool lives as long as any of its allocations: it ends with the last of them when the pointers have gone first.
  /// Nothing is reported then, unless close() was called.
  [[nodiscard]] static std::shared_ptr<MemoryPool> create(const PoolConfig& config, std::shared_ptr<Device> device);
  ~MemoryPool();  // for the pointers that create() makes, and no one else
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// The pool that serves a stream: this one for the default stream, another, made on first use, for a further one. It
  /// lives as long as this one, and as what it has handed out. nullptr, and why, when there is none: kept apart from
  /// the heaps of other streams, memory can be served to a stream in its order.
  ///
  /// Where the processor reaches the memory, one lane serves all streams: what it hands out no stream uses any more.
  ///
  /// The stream has to live while its lane serves, but not when what it served is released.
  [[nodiscard]] MemoryPool* lane(StreamHandle stream, AllocationOutcome& refusal) noexcept;
  /// As above; throws DeviceError, or what belongs to the outcome.
  [[nodiscard]] MemoryPool& lane(StreamHandle stream);
  /// Throws the exception that belongs to a refusal.
  [[noreturn]] void throw_no_lane(AllocationOutcome refusal, StreamHandle stream) const;
  /// Throws DeviceError unless the device has that stream.
  void require_stream(StreamHandle stream) const;
  /// Whether an allocation of `other` is one of this pool's, of whatever lane.
  [[nodiscard]] bool owns_lane(const MemoryPool& other) const noexcept { return other.lanes_ == lanes_; }
  /// Lets what `later` is given from now on follow the work of this lane's stream so far. Blocks until the device has
  /// nothing left to do where that stream has no name here: another thread's default stream, or one destroyed. Throws
  /// DeviceError, also for a stream of another device.
  void order_after_own(StreamHandle later);
  /// This lane's stream by the name it has on the calling thread; the default stream where it has none.
  [[nodiscard]] StreamHandle stream_here() const noexcept;
  /// The stream whose order this lane follows.
  [[nodiscard]] const StreamKey& stream() const noexcept { return stream_; }
  /// As release(), when the last use was enqueued on `stream`, or is ordered before its present end: at once if that is
  /// the lane's, else when an event recorded there now is complete. While the stream is captured into a graph, not
  /// before close(): no event tells when the graph is launched for the last time. Waits for nothing, but for the device
  /// after close() and where there is no memory to remember the release.
  [[nodiscard]] bool release(const Allocation& allocation, StreamHandle stream) noexcept;
  /// That `stream` uses an allocation of this lane, too: what it has enqueued by the release has to be complete before
  /// the memory is used again. The stream has to live until then, as it is named by its handle once more. Renews the
  /// allocation's handle, of which other copies become stale. False when it is not live.
  [[nodiscard]] bool record_stream(Allocation& allocation, StreamHandle stream) noexcept;
  /// Takes back what streams have finished with. Waits for nothing. False when that was nothing.
  bool poll_pending() noexcept;

  /// Serves a request or says why not. Throws nothing: the entry for callers that must not see exceptions.
  /// The alignment must have passed check_alignment().
  [[nodiscard]] AllocationOutcome serve(const AllocationRequest& request, Allocation& allocation) noexcept;
  /// As above for a buffer with the default alignment.
  [[nodiscard]] AllocationOutcome serve(std::uint64_t bytes, Allocation& allocation) noexcept;
  /// Throws the exception that belongs to an outcome other than served or would_block.
  [[noreturn]] void throw_failure(AllocationOutcome outcome, std::uint64_t bytes) const;
  /// Throws std::invalid_argument unless a power of two the device can serve.
  void check_alignment(std::uint64_t alignment_bytes) const;

  /// At least `bytes` from a heap or, by on_exhaustion, from the device. Zero bytes take one unit.
  /// Throws OutOfMemoryError, PoolClosedError, std::invalid_argument for the alignment.
  [[nodiscard]] Allocation allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = kUnitBytes);
  /// From a heap or not at all: waits for no stream. Throws PoolClosedError, std::invalid_argument.
  [[nodiscard]] std::optional<Allocation> try_allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = kUnitBytes);
  /// One allocation a size, or none at all and OutOfMemoryError; what was undone is counted nowhere but as exhaustion.
  [[nodiscard]] std::vector<Allocation> allocate_batch(std::span<const std::uint64_t> sizes);
  /// The same into a vector that was used before; empty when this throws.
  void allocate_batch(std::span<const std::uint64_t> sizes, std::vector<Allocation>& batch);
  /// Takes memory back. False for an allocation that is not live in this pool; nothing changes then.
  [[nodiscard]] bool release(const Allocation& allocation) noexcept;
  /// As release() of a buffer, if one of the calling thread's magazines takes it: never blocks. False, and nothing has
  /// changed, otherwise.
  [[nodiscard]] bool release_to_magazine(const Allocation& allocation) noexcept;
  /// Whether its release may have to wait for the device, which a fallback goes back to, and a closed pool's heaps.
  [[nodiscard]] bool release_may_wait(const Allocation& allocation) const noexcept {
    return allocation.is_fallback() || is_closed();
  }
  /// As release() for each; returns how many were live.
  std::size_t release_batch(std::span<const Allocation> batch) noexcept;

  /// The live array at that address; empty when this pool, or this lane of it, has none there.
  [[nodiscard]] Allocation find_array(std::uint64_t address) noexcept;
  /// The lane that an address, or a fallback array there, is of; the home lane for any other.
  [[nodiscard]] MemoryPool& lane_of(std::uint64_t address) noexcept;
  [[nodiscard]] bool contains(std::uint64_t address) const noexcept;

  /// A heap with no live block, as one allocation of its size. None left: as allocate() when no heap can serve.
  [[nodiscard]] Allocation acquire_heap() { return allocate(heap_size_bytes()); }
  /// Whether this is a whole heap, or the fallback for one.
  [[nodiscard]] bool is_whole_heap(const Allocation& allocation) const noexcept {
    return allocation.block_bytes == heap_size_bytes();
  }

  /// Commits the low end of every heap, as far as the sizes reach that fit together or the largest that fits alone.
  /// Live blocks are untouched. A size above the heap is skipped, with a warning unless it comes from a default.
  /// Throws OutOfMemoryError when the device has no memory left, PoolClosedError.
  WarmupReport warm_up(std::span<const std::uint64_t> sizes_bytes, const WarmupProgress& progress = nullptr,
                       bool sizes_are_default = false);
  /// Gives the memory of whole free granules back to the device, when streams have done with it: waits for them, and
  /// for the device where only it can tell. Returns the bytes given back. `may_log`: whether to say that the device
  /// kept some.
  std::uint64_t trim(bool may_log = true);
  /// Refuses new work and logs what is still live. Waits for streams, also for what was released while one was
  /// captured: no graph that uses it may be launched from here on. Memory goes with the last allocation. Idempotent.
  void close();
  /// Also in a forked child that has lost the device.
  [[nodiscard]] bool is_closed() const noexcept { return closed_.load(std::memory_order_acquire); }
  /// Throws DeviceError in a forked child that has lost the device: "Cannot `what`: ...".
  void require_device(std::string_view what) const;

  [[nodiscard]] PoolStatistics statistics() const;
  [[nodiscard]] std::vector<HeapStatistics> heaps() const;
  /// Counts start again at zero; what is live stays known.
  void reset_statistics();

  /// Remembers where a live allocation came from, for the leak report. Does nothing unless track_origins.
  void set_origin(const Allocation& allocation, std::string origin) { origins_.set(allocation, std::move(origin)); }

  [[nodiscard]] const PoolConfig& config() const noexcept { return config_; }
  [[nodiscard]] Device& device() const noexcept { return *device_; }
  [[nodiscard]] std::uint64_t heap_size_bytes() const noexcept { return heap_size_bytes_; }

 private:
  /// What a call may wait for. To wait for the device invalidates captures that cannot be seen, so that it comes last.
  enum class Wait { nothing, events, device };
  /// By a block of which size a request is served.
  struct Plan {
    std::uint64_t exact_bytes = 0;  ///< no less will do
    std::uint64_t block_bytes = 0;  ///< what a magazine would take back
    bool counted = true;            ///< whether the statistics learn of it now
    bool may_grow = true;           ///< whether a heap may commit memory for it
    Wait most = Wait::device;       ///< what heaps may wait for
  };

  MemoryPool(const PoolConfig& config, std::shared_ptr<Device> device, std::shared_ptr<StreamLanes> lanes,
             const StreamKey& stream);
  [[nodiscard]] static std::shared_ptr<MemoryPool> own(MemoryPool* pool);
  [[nodiscard]] std::function<bool()> await_streams();
  void abandon() noexcept;
  void remove_reference(std::uint64_t references) noexcept;
  void wait_for_late_ends() const noexcept;

  [[nodiscard]] bool uses_magazines(const AllocationRequest& request) const noexcept {
    return config_.magazines && request.alignment_bytes <= kUnitBytes;
  }
  [[nodiscard]] bool plan(const AllocationRequest& request, Plan& plan) noexcept;
  [[nodiscard]] AllocationOutcome serve_slowly(const AllocationRequest& request, bool counted,
                                               Allocation& allocation) noexcept;
  [[nodiscard]] bool take_from_only_heap(const AllocationRequest& request, Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome serve_planned(const AllocationRequest& request, const Plan& plan,
                                                Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome serve_from_heaps(const AllocationRequest& request, const Plan& plan,
                                                   Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_sizes(const AllocationRequest& request, const Plan& plan,
                                            Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_heaps_beside_trim(const AllocationRequest& request, const Plan& plan,
                                                        Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_heaps(const AllocationRequest& request, const Plan& plan,
                                            Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_ordered(std::span<const std::uint32_t> order, const AllocationRequest& request,
                                              const Plan& plan, Allocation& allocation) noexcept;
  template <Holder holder>
  [[nodiscard]] bool serve_from_magazine(std::uint64_t bytes, Allocation& allocation) noexcept;
  template <Holder holder>
  [[nodiscard]] bool park_in(ThreadCache& cache, const Allocation& allocation) noexcept;
  template <Holder holder>
  [[nodiscard]] bool release_to_magazine(const Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome serve_buffer_slowly(std::uint64_t bytes, Allocation& allocation) noexcept;
  [[nodiscard]] bool take_parked(const AllocationRequest& request, Allocation& allocation) noexcept;
  void refill(const Allocation& allocation) noexcept;
  void park_extras(ThreadCache& cache, const Allocation& allocation, std::uint32_t extras) noexcept;
  /// Parks allocations under one lock until one has to take another way. Returns how many.
  [[nodiscard]] std::size_t release_run(std::span<const Allocation> batch) noexcept;
  [[nodiscard]] bool release_array(const Allocation& allocation) noexcept;
  [[nodiscard]] bool park(const Allocation& allocation) noexcept;
  [[nodiscard]] bool release_slowly(const Allocation& allocation, bool is_named = false) noexcept;
  [[nodiscard]] ReleaseResult release_from_heap(const Allocation& allocation, bool behind_tail) noexcept;
  void give_back(std::span<const ParkedBlock> blocks) noexcept;
  // A batch: what magazines have is filled in first, its counts pending; `missing` lists the rest, in order.
  [[nodiscard]] bool take_parked(std::span<const std::uint64_t> sizes, std::vector<Allocation>& batch) noexcept;
  void serve_missing(std::span<const std::uint64_t> sizes, std::span<Allocation> batch,
                     std::span<const std::size_t> missing);
  void settle_pending(bool counts) noexcept;
  void undo(std::span<const Allocation> batch, std::span<const std::size_t> missing) noexcept;
  void count(const Allocation& allocation) noexcept;
  void undo(const Allocation& allocation) noexcept;

  // Streams: memory_pool_streams.cpp. A stream is named while the call of a user runs that passes it, or allocates on
  // its lane; at other times it may have been destroyed, and its handle must not be used.
  [[nodiscard]] bool is_home() const noexcept { return &lanes_->home() == this; }
  [[nodiscard]] AllocationOutcome key_of(StreamHandle stream, StreamKey& key) const noexcept;
  [[nodiscard]] MemoryPool* add_lane(const StreamKey& stream, AllocationOutcome& refusal) noexcept;
  [[nodiscard]] bool is_live(const Allocation& allocation) const noexcept;
  [[nodiscard]] bool release_on_lane(const Allocation& allocation) noexcept;
  [[nodiscard]] bool release_behind(const Allocation& allocation, std::span<const StreamKey> streams,
                                    bool are_named) noexcept;
  [[nodiscard]] bool end_release(const Allocation& allocation, bool behind_tail = false) noexcept;
  [[nodiscard]] bool needs_streams(const Allocation& allocation) noexcept;
  [[nodiscard]] bool release_in_order(const Allocation& allocation, bool is_named) noexcept;
  /// Returns what could not be deferred.
  [[nodiscard]] std::unique_ptr<PendingRelease> defer(const Allocation& allocation,
                                                      std::unique_ptr<PendingRelease> pending) noexcept;
  void keep(const Allocation& allocation, std::unique_ptr<PendingRelease> pending) noexcept;
  [[nodiscard]] std::uint64_t pending_bytes() const noexcept;
  [[nodiscard]] bool is_complete(PendingRelease& pending) noexcept;
  [[nodiscard]] bool await_events(const PendingRelease& pending) noexcept;
  [[nodiscard]] std::unique_ptr<PendingRelease> make_pending(const Allocation& allocation,
                                                             std::span<const StreamKey> streams,
                                                             bool are_named) noexcept;
  void record(PendingRelease::Use& use) noexcept;
  [[nodiscard]] bool take_deferred(const Allocation& allocation, PendingRelease& pending) noexcept;
  void take_back(const PendingRelease& release, bool uses_are_over) noexcept;
  void recycle_events(PendingRelease& pending) noexcept;
  void free_fallbacks(PendingRelease* releases) noexcept;
  enum class Polled { nothing, came_back, must_block };
  /// What `named`, if any, and lasting streams have done with comes back. A device may block over what goes back to it:
  /// that is left to a call that may.
  Polled poll_pending(const StreamKey* named, bool may_block) noexcept;
  enum class Completion {
    ordered,  ///< the lane's stream, which is named, goes behind the events
    awaited,  ///< they are waited for; the lane's stream is named
    settled,  ///< they are waited for, no stream is named
    closing,  ///< also for what was captured: no graph is launched any more
  };
  [[nodiscard]] bool complete_pending(Completion completion, Wait most = Wait::device) noexcept;
  [[nodiscard]] bool complete(PendingRelease::Use& use, Completion completion, Wait most) noexcept;
  [[nodiscard]] PendingRelease* take_pending(Completion completion) noexcept;
  [[nodiscard]] PendingRelease* put_back(PendingRelease* taken, Completion completion) noexcept;
  [[nodiscard]] AllocationOutcome serve_without_growth(const AllocationRequest& request, const Plan& plan,
                                                       Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome serve_under_pressure(const AllocationRequest& request, const Plan& plan,
                                                       Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_under_pressure(const AllocationRequest& request, const Plan& plan,
                                                     Allocation& allocation) noexcept;
  /// As plan(), after what counts for max_bytes and is pending has been completed as far as the request may wait.
  [[nodiscard]] AllocationOutcome plan_within_limit(const AllocationRequest& request, Plan& plan) noexcept;
  [[nodiscard]] bool settle_other_lanes(Wait most) noexcept;
  [[nodiscard]] bool has_addresses_for(std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool reclaim(std::uint64_t bytes, Wait most) noexcept;
  struct TrimOptions {
    std::uint64_t enough_bytes = 0;
    Wait most = Wait::device;
    bool is_named = false;  ///< whether the lane's stream is
  };
  [[nodiscard]] std::uint64_t trim_lane(const TrimOptions& options, bool& refused);
  [[nodiscard]] bool wait(EventHandle event, Wait most) noexcept;
  [[nodiscard]] bool has_finished_stream(const TrimOptions& options) noexcept;
  [[nodiscard]] std::uint64_t returned_count() const noexcept;
  [[nodiscard]] bool has_tail() const noexcept { return is_stream_ordered_ && !stream_.is_lasting(); }
  [[nodiscard]] bool mark_tail() noexcept;
  void keep_tail() noexcept;
  [[nodiscard]] bool take_fallback(const AllocationRequest& request, const Plan& plan, Allocation& allocation) noexcept;
  void close_lane() noexcept;

  class Picture;
  void add_heaps(ThreadCaches::Standstill& standstill, std::vector<HeapStatistics>& all) const;
  void reset_statistics(ThreadCaches::Standstill& standstill);
  [[nodiscard]] LeakReport leak_report() const;
  [[nodiscard]] std::uint64_t warm_bytes_per_heap(std::span<const std::uint64_t> sizes_bytes, bool are_default) const;
  void before_fork();
  void unlock_after_fork();
  void after_fork_in_parent();
  void after_fork_in_child();

  const PoolConfig config_;
  const std::shared_ptr<Device> device_;
  const std::uint64_t heap_size_bytes_;
  const bool has_streams_;        // whether memory may come back with streams that still use it
  const bool is_stream_ordered_;  // whether what is handed out may still be used by earlier work of the lane's stream
  const std::shared_ptr<StreamLanes> lanes_;
  const StreamKey stream_;
  const std::vector<std::unique_ptr<Heap>> heaps_;
  const std::uint32_t heap_count_;
  const MagazineLayout layout_;
  mutable ThreadCaches caches_;
  const bool has_only_heap_;  // no magazine in front of it, and no limit
  // The caches' id, or one that no cache has where an allocation or a release has more to do than magazines know.
  const std::uint64_t fast_id_;
  mutable FallbackAllocations fallbacks_;
  ByteLimit& limit_;
  RecordedStreams recorded_;
  StreamTail tail_;
  Origins origins_;
  PoolLog log_;

  std::atomic<bool> closed_{false};
  bool lost_device_ = false;            // set by a fork, when no other thread is there
  std::atomic<std::uint32_t> turn_{0};  // a hint: threads may take the same one

  // trim() holds free blocks back for a moment: a request that finds none waits here and tries once more. No
  // std::shared_mutex: the child of a fork could not unlock it.
  std::mutex trim_mutex_;
  std::atomic<std::uint64_t> trim_epoch_{0};  // odd while a trim runs

  std::vector<EventCounters> baselines_;      // by heap, at the last reset; guarded by a standstill
  std::vector<ParkedTotals> pending_;         // by heap; guarded by the lock of the pending releases
  std::uint64_t pending_fallback_bytes_ = 0;  // likewise

  // Lifetime without the pointers: after abandon(), one reference for each live allocation.
  static constexpr std::uint64_t kOwned = std::uint64_t{1} << 62;
  std::atomic<std::uint64_t> references_{kOwned};
  std::atomic<std::uint64_t> late_ends_{0};  // releases that have something left to do and hold no reference

  ForkHandler fork_handler_;  // last: it locks what stands above
};

}  // namespace tierpool
