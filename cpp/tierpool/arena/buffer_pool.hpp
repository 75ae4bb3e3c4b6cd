#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tierpool/arena/buffer_pool_config.hpp"
#include "tierpool/arena/buffer_pool_statistics.hpp"
#include "tierpool/arena/completion_event.hpp"
#include "tierpool/arena/growth_alarm.hpp"
#include "tierpool/arena/lease.hpp"
#include "tierpool/arena/quarantine.hpp"
#include "tierpool/arena/residency.hpp"
#include "tierpool/arena/shortage.hpp"
#include "tierpool/arena/slot_table.hpp"
#include "tierpool/base/fork_handler.hpp"
#include "tierpool/base/spin_lock.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// An arena of scratch buffers that are recycled together: reset() ends every lease in one step per class size.
///
/// Buffers come from a MemoryPool; a bare device is a MemoryPool with `enabled` off. A lease is live until it is
/// released or the pool is reset; a handle that is not live is recognised, whoever has its buffer by then. Releases,
/// resets and drops mix freely. Every call is thread-safe. The source, completion events and the log are called with no
/// lock held. Safe over fork, if the source is.
class BufferPool {
 public:
  /// Throws ConfigError.
  BufferPool(const BufferPoolConfig& config, std::shared_ptr<MemoryPool> source);
  /// Waits for the completion events that are pending, then gives every buffer back; live leases end.
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// Leases a buffer of the class of `bytes`. A new one is taken from the source when none is free; when that fails or
  /// a limit is reached, free buffers of other classes are given back and pending completion events waited for, as far
  /// as that can help. Zero bytes are a valid request.
  /// Throws OutOfMemoryError naming the limit or what the source said, PoolClosedError.
  [[nodiscard]] Lease alloc(std::uint64_t bytes);
  /// The same from a buffer that holds exactly `bytes`: for what is large and lives long.
  [[nodiscard]] Lease alloc_exact(std::uint64_t bytes);
  /// One lease a size into `leases`, or none at all and an exception as from alloc(). The spans have one length, or
  /// std::invalid_argument is thrown.
  void alloc_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases);

  /// The same three from free buffers that need no filling: false when that does not serve, and nothing changes then.
  /// They neither wait nor log nor call anybody.
  [[nodiscard]] bool try_alloc(std::uint64_t bytes, Lease& lease) noexcept;
  [[nodiscard]] bool try_alloc_exact(std::uint64_t bytes, Lease& lease) noexcept;
  [[nodiscard]] bool try_alloc_batch(std::span<const std::uint64_t> sizes, std::span<Lease> leases) noexcept;

  /// Ends a lease; its buffer is free at once.
  [[nodiscard]] ReleaseOutcome release(const Lease& lease) noexcept;
  /// Ends those of the leases that release() would end. Returns how many.
  std::uint64_t release_batch(std::span<const Lease> leases) noexcept;
  /// Ends every lease; the buffers are free at once. O(class sizes). In checked mode live views refuse it; without
  /// `checked` they are cut off, and their memory is handed out again under them.
  [[nodiscard]] ResetOutcome reset();
  /// The same, but the buffers stay out of use until `after` has completed; asked at the next reset, and whenever a
  /// request finds no free buffer. Copies four bytes per lease. Throws std::bad_alloc, changing nothing.
  [[nodiscard]] ResetOutcome reset(std::shared_ptr<CompletionEvent> after);

  /// The same three for callers that must not block, as a source may when memory goes back to it: what a closed pool
  /// has to give back is left to give_back_free(), and `left` set.
  [[nodiscard]] ReleaseOutcome release(const Lease& lease, bool& left) noexcept;
  std::uint64_t release_batch(std::span<const Lease> leases, bool& left) noexcept;
  [[nodiscard]] ResetOutcome reset(std::shared_ptr<CompletionEvent> after, bool& left);
  void give_back_free() noexcept { static_cast<void>(give_back(UINT64_MAX)); }

  /// Gives every free buffer back to the source; live leases stay valid.
  void clear() { static_cast<void>(trim(UINT64_MAX)); }
  /// Gives at least `bytes` of free buffers back to the source, or all there are: the largest that do not exceed what
  /// is still missing first. Returns the bytes given back.
  std::uint64_t trim(std::uint64_t bytes) noexcept;
  /// Refuses new leases, gives free buffers back, ends registrations. Live leases stay valid; their buffers go back to
  /// the source as they end. Idempotent.
  void close() noexcept;
  [[nodiscard]] bool is_closed() const noexcept;

  [[nodiscard]] LeaseState state_of(const Lease& lease) const noexcept;
  /// Throws StaleBufferError that says what became of a lease that is not live.
  void require_live(const Lease& lease) const;
  /// Notes one more view of the lease's memory. False when the lease is not live.
  [[nodiscard]] bool add_view(const Lease& lease) noexcept;
  /// Notes that a view is gone. Does nothing for a lease that is not live: its views were cut off.
  void remove_view(const Lease& lease) noexcept;
  /// Remembers where a live lease was allocated. Does nothing unless track_origins.
  void set_origin(const Lease& lease, std::string origin);
  /// Every live lease with views; walks all leases.
  [[nodiscard]] std::vector<ViewedLease> live_views() const;

  /// Accounts for memory that somebody else owns and, unless `pin_registered` is off, locks it into RAM; blocks while
  /// the system reads it in. The owner ends the registration before the memory goes. False when this very range is
  /// registered already. Throws std::invalid_argument for an overlap, an impossible range, or a source whose memory the
  /// processor cannot reach; PoolClosedError.
  bool register_existing(std::uint64_t address, std::uint64_t bytes);
  /// Ends the registration of this very range. False when there is none.
  bool unregister_existing(std::uint64_t address, std::uint64_t bytes) noexcept {
    return residency_.remove(address, bytes);
  }
  [[nodiscard]] std::vector<Registration> registrations() const { return residency_.registrations(); }

  [[nodiscard]] std::uint64_t free_count() const noexcept;
  [[nodiscard]] std::uint64_t free_bytes() const noexcept;
  [[nodiscard]] std::uint64_t in_use_count() const noexcept;
  [[nodiscard]] BufferPoolStatistics statistics() const;

  [[nodiscard]] const BufferPoolConfig& config() const noexcept { return config_; }
  [[nodiscard]] const std::shared_ptr<MemoryPool>& source() const noexcept { return source_; }

 private:
  struct GivenBack {
    std::uint64_t bytes = 0;
    std::uint64_t count = 0;
  };

  /// The way for requests that find no free buffer or whose memory has to be filled.
  void lease_slowly(std::span<PreparedSlot> prepared, bool exact, std::span<Lease> leases);
  /// Takes free buffers out, makes room for those that are missing; all or none.
  [[nodiscard]] Shortage prepare(std::span<PreparedSlot> prepared, bool exact);
  [[nodiscard]] Shortage check_limits(std::span<const PreparedSlot> prepared) const noexcept;  // with the lock held
  /// Takes what is missing from the source; all or none.
  [[nodiscard]] Shortage fetch(std::span<PreparedSlot> prepared) noexcept;
  void fill(std::span<const PreparedSlot> prepared) const noexcept;
  /// Leases all, unless the pool was closed meanwhile.
  [[nodiscard]] Shortage commit(std::span<const PreparedSlot> prepared, std::span<Lease> leases) noexcept;
  void give_back_fetched(std::span<PreparedSlot> prepared) noexcept;
  void undo_prepare(std::span<PreparedSlot> prepared) noexcept;
  /// Frees memory that a second attempt may find. Whether one is worth it.
  [[nodiscard]] bool recover(const Shortage& shortage) noexcept;

  void after_fork_in_child();
  [[nodiscard]] ReleaseOutcome release_locked(const Lease& lease) noexcept;
  [[nodiscard]] bool refuses_reset() const noexcept { return config_.checked && live_views_ != 0; }
  /// Counts a reset, with the lock held. What to log after it; usually nothing.
  [[nodiscard]] std::string note_reset() noexcept;
  /// Ends every lease, with the lock held. An event that is not needed stays with the caller: its end may run anything.
  void end_leases(std::shared_ptr<CompletionEvent>& after);
  /// Makes the buffers of completed events free; with `wait`, of all events. Whether there were any.
  bool end_quarantine(bool wait) noexcept;
  bool end_quarantine(bool wait, bool& left) noexcept;
  /// Gives free buffers back, until `bytes` are reached or `count` buffers.
  GivenBack give_back(std::uint64_t bytes, std::uint64_t count = UINT64_MAX) noexcept;
  [[nodiscard]] std::string growth_message() const noexcept;  // with the lock held

  const BufferPoolConfig config_;
  const std::shared_ptr<MemoryPool> source_;
  const bool fills_reused_;
  Residency residency_;

  mutable SpinLock lock_;  // guards all below
  SlotTable table_;
  Quarantine quarantine_;
  GrowthAlarm alarm_;
  std::unordered_map<std::uint32_t, std::string> origins_;  // by slot, of its last lease that told
  std::uint64_t live_views_ = 0;
  std::uint64_t resets_ = 0;
  bool closed_ = false;
  bool leases_directly_;  // neither closed nor to be filled

  ForkHandler fork_handler_{ForkHandler::Rank::pool, [this] { lock_.lock(); }, [this] { lock_.unlock(); },
                            [this] { after_fork_in_child(); }};  // last
};

}  // namespace tierpool
