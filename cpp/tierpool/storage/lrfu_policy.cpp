#include "tierpool/storage/lrfu_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tierpool {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr double kForgottenAtOnce = 64;  // half-lives in which a count becomes too small to change a double

}  // namespace

LrfuPolicy::LrfuPolicy(std::uint32_t unit_count, double half_life)
    : half_lives_per_request_(half_life > 0 ? std::min(1 / half_life, kForgottenAtOnce) : kForgottenAtOnce),
      scores_(unit_count, kNever),
      places_(unit_count) {
  present_.reserve(unit_count);  // so that no later call allocates
}

void LrfuPolicy::requested(UnitId unit) noexcept {
  insert(unit);
  now_ += half_lives_per_request_;
  scores_[unit] = now_ + std::log2(1 + std::exp2(scores_[unit] - now_));
}

/// Half a request, unless it has had a whole one.
void LrfuPolicy::prefetched(UnitId unit) noexcept {
  insert(unit);
  scores_[unit] = std::max(scores_[unit], now_ - 1);
}

void LrfuPolicy::removed(UnitId unit) noexcept {
  if (places_[unit] == 0) {
    return;
  }
  const std::uint32_t place = places_[unit] - 1;
  present_[place] = present_.back();
  places_[present_[place]] = place + 1;
  present_.pop_back();
  places_[unit] = 0;
}

std::optional<UnitId> LrfuPolicy::victim(const std::function<bool(UnitId)>& may_go) const {
  std::optional<UnitId> least;
  for (const UnitId unit : present_) {
    const bool is_less =
        !least || scores_[unit] < scores_[*least] || (scores_[unit] == scores_[*least] && unit < *least);
    if (is_less && may_go(unit)) {
      least = unit;
    }
  }
  return least;
}

void LrfuPolicy::insert(UnitId unit) noexcept {
  if (places_[unit] == 0) {
    present_.push_back(unit);
    places_[unit] = static_cast<std::uint32_t>(present_.size());
  }
}

}  // namespace tierpool
