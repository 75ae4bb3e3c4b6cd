#include "tierpool/engine/ring_gate.hpp"

namespace tierpool {

void RingGate::enter(std::uint32_t layer, std::span<const std::int32_t> /*experts*/) {
  const RingStatistics before = ring_.statistics();
  try {
    ring_.enter(layer);
  } catch (...) {
    count(layer, before);
    throw;
  }
  count(layer, before);
}

/// Nobody else enters a layer meanwhile, so that what the ring has counted since is the layer's.
void RingGate::count(std::uint32_t layer, const RingStatistics& before) {
  const RingStatistics now = ring_.statistics();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (layer >= layer_requests_.size()) {
    return;  // which the ring has refused
  }
  const std::uint64_t ready = now.ready - before.ready;
  LayerRequests& requests = layer_requests_[layer];
  requests.hits += ready;
  requests.misses += now.requests - before.requests - ready;
  requests.read_bytes += now.read_bytes - before.read_bytes;
  requests.stall_ns += now.stall_ns - before.stall_ns;
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
