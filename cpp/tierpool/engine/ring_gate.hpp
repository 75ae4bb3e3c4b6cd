#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "tierpool/engine/layer_gate.hpp"
#include "tierpool/storage/layer_ring.hpp"

namespace tierpool {

/// Dense layers in a ring; one request for each layer of a forward, a hit when the layer had arrived by then.
class RingGate final : public LayerGate {
 public:
  /// The ring outlives the gate, and was started.
  RingGate(LayerRing& ring, std::uint32_t layers) : ring_(ring), layer_requests_(layers) {}

  void enter(std::uint32_t layer, std::span<const std::int32_t> experts) override;
  void leave() noexcept override {}  // what comes next is being read already
  void cancel() noexcept override { ring_.cancel(); }
  [[nodiscard]] GateStatistics statistics() const override;
  [[nodiscard]] std::vector<LayerRequests> layer_requests() const override;

 private:
  void count(std::uint32_t layer, const RingStatistics& before);

  LayerRing& ring_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<LayerRequests> layer_requests_;
};

}  // namespace tierpool
