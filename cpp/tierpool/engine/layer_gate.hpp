#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tierpool {

/// Requests of one layer for its units; see GateStatistics.
struct LayerRequests {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t stall_ns = 0;
};

/// What a forward did so far; see CacheStatistics and RingStatistics.
struct GateStatistics {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t reused_bytes = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t stall_ns = 0;
};

/// Lets a layer be computed when its weights are there. enter() and leave() are called by one thread at a time, the
/// rest by any. Layers are named by their place among those whose weights come and go.
class LayerGate {
 public:
  virtual ~LayerGate() = default;

  /// Blocks until the layer can read its weights, which stay until another layer is entered or leave() is called;
  /// those of the layer before may go from now on. `experts` are those that its tokens need, one request each, none
  /// where the layer has no experts. Throws as ExpertCache::acquire() and LayerRing::enter() do, and
  /// std::out_of_range for an unknown layer or expert.
  virtual void enter(std::uint32_t layer, std::span<const std::int32_t> experts) = 0;
  /// The forward is over, or broken off.
  virtual void leave() noexcept = 0;
  /// Ends a wait that is under way.
  virtual void cancel() noexcept = 0;

  [[nodiscard]] virtual GateStatistics statistics() const = 0;
  /// By layer.
  [[nodiscard]] virtual std::vector<LayerRequests> layer_requests() const = 0;
};

}  // namespace tierpool
