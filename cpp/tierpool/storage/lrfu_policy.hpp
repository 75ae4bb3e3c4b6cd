#pragma once

#include <cstdint>
#include <vector>

#include "tierpool/storage/eviction_policy.hpp"

namespace tierpool {

/// Gives up what was needed least often lately: each request counts 1 when it is made, and half as much after each
/// further `half_life` requests (LRFU: Lee et al., "LRFU: A Spectrum of Policies that Subsumes the Least Recently Used
/// and Least Frequently Used Policies", IEEE Trans. Computers 50(12), 2001). Counts outlive the unit's stay in the
/// cache.
///
/// Constant time per call, but for victim(), which looks at every unit of the cache: far less than reading one takes.
class LrfuPolicy final : public EvictionPolicy {
 public:
  /// Half-life over the number of units. lrfu_policy_test compares it with LRU: fewer misses where some units are more
  /// popular, as many where what was needed last is needed again.
  static constexpr double kHalfLifePerUnit = 0.5;

  explicit LrfuPolicy(std::uint32_t unit_count) : LrfuPolicy(unit_count, kHalfLifePerUnit * unit_count) {}
  /// With a half-life of 0 only the last request counts, which is LRU.
  LrfuPolicy(std::uint32_t unit_count, double half_life);

  void requested(UnitId unit) noexcept override;
  void prefetched(UnitId unit) noexcept override;
  void removed(UnitId unit) noexcept override;
  [[nodiscard]] std::optional<UnitId> victim(const std::function<bool(UnitId)>& may_go) const override;

 private:
  void insert(UnitId unit) noexcept;

  const double half_lives_per_request_;
  double now_ = 0;  // in half-lives
  // By unit: the logarithm, to base 2, of what its requests count, as seen from the beginning. Time changes none of it.
  std::vector<double> scores_;
  std::vector<UnitId> present_;        // units in the cache, in no order
  std::vector<std::uint32_t> places_;  // by unit: its index among those, and 1; 0 outside
};

}  // namespace tierpool
