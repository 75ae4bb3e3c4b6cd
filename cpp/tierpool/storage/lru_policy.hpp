#pragma once

#include <cstdint>
#include <vector>

#include "tierpool/storage/eviction_policy.hpp"

namespace tierpool {

/// Gives up what was not needed for the longest time. Constant time per call, but for units that may not go.
class LruPolicy final : public EvictionPolicy {
 public:
  explicit LruPolicy(std::uint32_t unit_count);

  void requested(UnitId unit) noexcept override { move_to_back(unit); }
  void prefetched(UnitId unit) noexcept override { move_to_back(unit); }
  void removed(UnitId unit) noexcept override;
  [[nodiscard]] std::optional<UnitId> victim(const std::function<bool(UnitId)>& may_go) const override;

 private:
  struct Link {
    std::uint32_t previous = 0;
    std::uint32_t next = 0;
  };
  void move_to_back(UnitId unit) noexcept;

  // A ring of units, the oldest behind its last element, which stands for no unit; a unit outside links to itself.
  std::vector<Link> links_;
};

}  // namespace tierpool
