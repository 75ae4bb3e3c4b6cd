#include "tierpool/engine/ring_gate.hpp"

namespace tierpool {

void RingGate::enter(std::uint32_t layer, std::span<const std::int32_t> /*experts*/) {
  const std::uint64_t ready_before = ring_.statistics().ready;
  ring_.enter(layer);
  const bool was_ready = ring_.statistics().ready > ready_before;
  const std::lock_guard<std::mutex> lock(mutex_);
  ++(was_ready ? layer_requests_.at(layer).hits : layer_requests_.at(layer).misses);
}

GateStatistics RingGate::statistics() const {
  const RingStatistics ring = ring_.statistics();
  return {ring.ready,   ring.requests - ring.ready, ring.requested_bytes, ring.reused_bytes, ring.read_bytes,
          ring.stall_ns};
}

std::vector<LayerRequests> RingGate::layer_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return layer_requests_;
}

}  // namespace tierpool
