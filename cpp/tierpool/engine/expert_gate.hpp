#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tierpool/engine/layer_gate.hpp"
#include "tierpool/storage/expert_cache.hpp"

namespace tierpool {

/// Layers of experts in a cache: unit `layer * experts + expert` is an expert.
class ExpertGate final : public LayerGate {
 public:
  /// The cache outlives the gate and has a unit for each expert of each layer.
  ExpertGate(ExpertCache& cache, std::uint32_t layers, std::uint32_t experts)
      : cache_(cache), layers_(layers), experts_(experts) {}

  void enter(std::uint32_t layer, std::span<const std::int32_t> experts) override;
  void leave() noexcept override { lease_ = {}; }
  void cancel() noexcept override { cache_.cancel(); }
  [[nodiscard]] GateStatistics statistics() const override;
  [[nodiscard]] std::vector<LayerRequests> layer_requests() const override;

 private:
  ExpertCache& cache_;
  const std::uint32_t layers_;
  const std::uint32_t experts_;
  std::vector<UnitId> units_;  // of the layer being entered; kept for its memory
  ExpertCache::Lease lease_;
};

}  // namespace tierpool
