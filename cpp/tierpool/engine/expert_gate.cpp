#include "tierpool/engine/expert_gate.hpp"

#include <stdexcept>
#include <string>

namespace tierpool {

void ExpertGate::enter(std::uint32_t layer, std::span<const std::int32_t> experts) {
  if (layer >= layers_) {
    throw std::out_of_range("There is no layer " + std::to_string(layer) + ": there are " + std::to_string(layers_));
  }
  units_.clear();
  for (const std::int32_t expert : experts) {
    if (expert < 0 || static_cast<std::uint32_t>(expert) >= experts_) {
      throw std::out_of_range("The router chose expert " + std::to_string(expert) + " of " + std::to_string(experts_));
    }
    units_.push_back(layer * experts_ + static_cast<std::uint32_t>(expert));
  }
  lease_ = {};  // first, so that the slots of the layer before can be taken
  if (!units_.empty()) {
    lease_ = cache_.acquire(units_);
  }
}

GateStatistics ExpertGate::statistics() const {
  const CacheStatistics cache = cache_.statistics();
  return {cache.hits, cache.misses, cache.requested_bytes, cache.reused_bytes, cache.read_bytes, cache.stall_ns};
}

std::vector<LayerRequests> ExpertGate::layer_requests() const {
  const std::vector<UnitRequests> units = cache_.unit_requests();
  std::vector<LayerRequests> layers(layers_);
  for (std::size_t unit = 0; unit < units.size(); ++unit) {
    layers[unit / experts_].hits += units[unit].hits;
    layers[unit / experts_].misses += units[unit].misses;
    layers[unit / experts_].read_bytes += units[unit].read_bytes;
    layers[unit / experts_].stall_ns += units[unit].stall_ns;
  }
  return layers;
}

}  // namespace tierpool
