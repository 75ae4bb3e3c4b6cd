#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "tierpool/base/clock.hpp"
#include "tierpool/base/condition.hpp"
#include "tierpool/storage/eviction_policy.hpp"
#include "tierpool/storage/slot_binding.hpp"
#include "tierpool/storage/unit_loader.hpp"

namespace tierpool {

/// What was asked of a cache. A request is a hit when the unit's bytes were in memory at the moment of the request,
/// before anything was loaded for it; each request counts once, also of a unit asked for several times in one call.
struct CacheStatistics {
  std::uint64_t requests = 0;  ///< hits + misses
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t loads = 0;       ///< reads begun
  std::uint64_t prefetches = 0;  ///< of these, before anyone asked
  std::uint64_t evictions = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t reused_bytes = 0;  ///< of the hits
  std::uint64_t read_bytes = 0;    ///< of units that arrived
  std::uint64_t stall_ns = 0;      ///< that callers waited for reads
};

/// The same of one unit.
struct UnitRequests {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t stall_ns = 0;
};

/// Keeps the units in slots that its policy keeps, and shows them to the engine.
///
/// Every call may come from any thread. The lock is held over the binding's calls, never over a read. A unit is shown
/// only after its read completed, and is hidden before its slot is filled with another one. In a forked child, where
/// the parent goes on changing the slots, acquire(), prefetch() and preload() throw, statistics are not to be had, and
/// the rest does nothing.
class ExpertCache {
 public:
  /// Units that stay where they are until it dies. Not to be used by two threads at once; may outlive close(), not
  /// the cache.
  class Lease {
   public:
    Lease() = default;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Lease(Lease&& other) noexcept { swap(other); }
    Lease& operator=(Lease&& other) noexcept {
      Lease(std::move(other)).swap(*this);
      return *this;
    }
    ~Lease();

    /// Distinct units held.
    [[nodiscard]] std::size_t unit_count() const noexcept { return pins_.size(); }

   private:
    friend class ExpertCache;
    struct Pin {
      UnitId unit = 0;
      std::uint64_t load_number = 0;
      ReadHandle read;  // while it is on its way
    };
    void swap(Lease& other) noexcept {
      std::swap(cache_, other.cache_);
      pins_.swap(other.pins_);
    }

    ExpertCache* cache_ = nullptr;
    std::vector<Pin> pins_;
  };

  /// The cache alone takes slots from `slots`. Everything given outlives the cache.
  ExpertCache(UnitLoader& loader, SlotPool& slots, SlotBinding& binding, std::unique_ptr<EvictionPolicy> policy,
              const Clock& clock);
  /// Ends as close() does.
  ~ExpertCache();
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  /// Blocks until all of the units can be read where the engine expects them, and keeps them there. A unit may be named
  /// several times. Throws, with nothing held: ReadError; CancelledError after cancel() and close(); BudgetError when
  /// there are more of them than slots that are not leased; std::out_of_range for an unknown unit; DeviceError when one
  /// cannot be shown. What did arrive stays in the cache.
  [[nodiscard]] Lease acquire(std::span<const UnitId> requests);
  /// Begins to fetch units into slots that are free now, in this order; those that are there are left alone. A later
  /// request that needs the slot cancels it. Returns how many were begun. Throws as acquire() does.
  std::uint32_t prefetch(std::span<const UnitId> units);
  /// The same, and waits until they are there. Throws as acquire() does when one is not.
  std::uint32_t preload(std::span<const UnitId> units);
  /// Ends the waits that are under way.
  void cancel() noexcept;
  /// Cancels, waits for callers to leave, hides every unit and gives the slots back. Does nothing the second time.
  void close() noexcept;

  [[nodiscard]] CacheStatistics statistics() const;
  /// By unit.
  [[nodiscard]] std::vector<UnitRequests> unit_requests() const;

 private:
  enum class Presence : std::uint8_t { absent, loading, arrived, shown };
  struct Entry {
    Presence presence = Presence::absent;
    std::uint32_t pins = 0;
    SlotId slot = 0;
    std::uint64_t load_number = 0;  // tells a load from an earlier one of the same unit
    std::uint64_t last_call = 0;    // the acquire() that named it last
    ReadHandle read;
    UnitRequests requests;
  };

  /// What a cancelled read may still write to.
  struct RestingSlot {
    SlotId slot = 0;
    ReadHandle read;
  };

  // All of these expect mutex_ to be held.
  [[nodiscard]] std::vector<UnitId> count_requests(std::span<const UnitId> requests);
  std::uint32_t begin_prefetches(std::span<const UnitId> units);
  void begin_loads(const std::vector<UnitId>& units, Lease& lease, std::unique_lock<std::mutex>& lock);
  void pin(UnitId unit, Lease& lease);
  void pin_present(std::vector<UnitId>& units, Lease& lease);
  void make_room(std::vector<UnitId>& missing, Lease& lease, std::unique_lock<std::mutex>& lock);
  void abandon(UnitId unit) noexcept;
  void abandon_unshared(const Lease& lease) noexcept;
  void wait_for_resting_slot(std::unique_lock<std::mutex>& lock);
  void make_readable(Lease& lease, std::unique_lock<std::mutex>& lock);
  void begin_load(UnitId unit, SlotId slot, ReadPriority priority);
  [[nodiscard]] SlotId take_slot();
  [[nodiscard]] bool may_go(UnitId unit) const noexcept;
  /// Whether the load that was pinned is still the unit's.
  [[nodiscard]] bool is_pinned_by(const Lease::Pin& pin) const noexcept {
    const Entry& entry = entries_[pin.unit];
    return entry.presence != Presence::absent && entry.load_number == pin.load_number;
  }
  [[nodiscard]] std::uint64_t count_evictable() const noexcept;
  void settle(UnitId unit, const ReadHandle& read);
  void settle_finished();
  void forget(UnitId unit);
  void require_open() const;
  void require_known(std::span<const UnitId> units) const;
  void cancel_reads() noexcept;
  void unpin(Lease& lease) noexcept;

  void release(Lease& lease) noexcept;

  UnitLoader& loader_;
  SlotPool& slots_;
  SlotBinding& binding_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards all below
  Condition idle_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Entry> entries_;    // by unit
  std::vector<UnitId> loading_;   // units on their way
  std::vector<UnitId> occupied_;  // units in slots, in no order
  std::vector<RestingSlot> resting_;
  CacheStatistics statistics_;
  std::uint64_t call_number_ = 0;
  std::uint32_t active_calls_ = 0;
  bool closed_ = false;
};

}  // namespace tierpool
