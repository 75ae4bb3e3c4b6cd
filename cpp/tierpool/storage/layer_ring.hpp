#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "tierpool/base/clock.hpp"
#include "tierpool/storage/slot_binding.hpp"
#include "tierpool/storage/unit_loader.hpp"

namespace tierpool {

struct RingStatistics {
  std::uint64_t requests = 0;         ///< layers entered, each time
  std::uint64_t ready = 0;            ///< of these, with nothing to wait for
  std::uint64_t requested_bytes = 0;  ///< of the layers entered
  std::uint64_t reused_bytes = 0;     ///< of these, in pinned layers
  std::uint64_t read_bytes = 0;       ///< of units that arrived, pinned ones included
  std::uint64_t stall_ns = 0;         ///< that enter() waited for reads
};

/// Whether each of `layer_count` layers is pinned, when `pinned_count` of them are, as evenly as whole layers allow,
/// also from the last to the first: the disk works on while pinned layers are computed.
[[nodiscard]] std::vector<std::uint8_t> interleave_pinned(std::uint32_t layer_count, std::uint32_t pinned_count);

/// Layers that are used one after the other, again and again: some pinned in slots of their own, the others passing
/// through the rest of the slots, read ahead of their use without a pause between the last layer and the first.
///
/// start() and enter() are called by one thread at a time, cancel() and statistics() by any; close() when no other call
/// is running. The lock is held over the binding's calls, never over a read. In a forked child, start() and enter()
/// throw, statistics are not to be had, and the rest does nothing.
class LayerRing {
 public:
  /// `layers` by order of use; no unit twice. `depth` slots form the ring, the others hold pinned layers; with a slot
  /// for every layer all are pinned. Throws ConfigError when the ring has less than one slot or more than there are.
  /// Takes every slot of `slots`. Everything given outlives the ring.
  LayerRing(UnitLoader& loader, SlotPool& slots, SlotBinding& binding, std::vector<UnitId> layers, std::uint32_t depth,
            const Clock& clock);
  /// Ends as close() does.
  ~LayerRing();
  LayerRing(const LayerRing&) = delete;
  LayerRing& operator=(const LayerRing&) = delete;

  /// Reads and shows the pinned layers, and begins with the others. Throws ReadError, CancelledError, DeviceError.
  void start();
  /// Blocks until the layer, by its place in `layers`, can be read where the engine expects it. It stays there until
  /// another one is entered; all before it may be replaced from now on. Entering a layer that does not follow, as after
  /// a forward that broke off, begins a new round. Throws as start() does, std::out_of_range for an unknown layer; may
  /// be called again after any error, which it reads anew after.
  void enter(std::uint32_t layer);
  /// Ends a wait that is under way, and every read; the next call begins them anew.
  void cancel() noexcept;
  /// Cancels, hides every layer and gives the slots back. Does nothing the second time.
  void close() noexcept;

  [[nodiscard]] bool is_pinned(std::uint32_t layer) const { return is_pinned_.at(layer) != 0; }
  [[nodiscard]] std::uint32_t streamed_count() const noexcept { return static_cast<std::uint32_t>(streamed_.size()); }
  [[nodiscard]] RingStatistics statistics() const;

 private:
  /// A slot and what is in it, or on its way there.
  struct Place {
    SlotId slot = 0;
    UnitId unit = 0;
    ReadHandle read;        // until it was waited for
    bool has_unit = false;  // something was read into it, or is being read
    bool is_shown = false;
  };

  // All of these expect mutex_ to be held; positions count the uses of streamed layers, round after round.
  [[nodiscard]] Place& place(std::uint64_t position) noexcept { return ring_[position % ring_.size()]; }
  [[nodiscard]] UnitId unit_at(std::uint64_t position) const noexcept { return streamed_[position % streamed_.size()]; }
  [[nodiscard]] std::uint64_t next_position(std::uint32_t layer) const noexcept;
  void recover(std::unique_lock<std::mutex>& lock);
  void advance_to(std::uint64_t position, std::unique_lock<std::mutex>& lock);
  void empty(Place& place, std::unique_lock<std::mutex>& lock);
  void begin(Place& place, UnitId unit, ReadPriority priority);
  void make_readable(Place& place, std::unique_lock<std::mutex>& lock);

  UnitLoader& loader_;
  SlotPool& slots_;
  SlotBinding& binding_;
  const Clock& clock_;
  const std::vector<UnitId> layers_;
  std::vector<std::uint8_t> is_pinned_;         // by layer
  std::vector<std::uint32_t> streamed_before_;  // by layer: streamed layers in front of it
  std::vector<UnitId> streamed_;                // in order
  mutable std::mutex mutex_;                    // guards all below
  std::vector<Place> pinned_;
  std::vector<Place> ring_;     // the unit at a position is in place(position), if it is in any
  std::uint64_t position_ = 0;  // the first one still needed
  bool is_broken_off_ = false;  // the reads under way count for nothing
  bool closed_ = false;
  RingStatistics statistics_;
};

}  // namespace tierpool
