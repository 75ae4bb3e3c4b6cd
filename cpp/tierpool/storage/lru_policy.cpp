#include "tierpool/storage/lru_policy.hpp"

namespace tierpool {

LruPolicy::LruPolicy(std::uint32_t unit_count) : links_(std::size_t{unit_count} + 1) {
  for (std::uint32_t i = 0; i <= unit_count; ++i) {
    links_[i] = {i, i};
  }
}

void LruPolicy::removed(UnitId unit) noexcept {
  Link& link = links_[unit];
  links_[link.previous].next = link.next;
  links_[link.next].previous = link.previous;
  link = {unit, unit};
}

std::optional<UnitId> LruPolicy::victim(const std::function<bool(UnitId)>& may_go) const {
  const auto end = static_cast<std::uint32_t>(links_.size() - 1);
  for (std::uint32_t unit = links_[end].next; unit != end; unit = links_[unit].next) {
    if (may_go(unit)) {
      return unit;
    }
  }
  return std::nullopt;
}

void LruPolicy::move_to_back(UnitId unit) noexcept {
  removed(unit);
  const auto end = static_cast<std::uint32_t>(links_.size() - 1);
  links_[unit] = {links_[end].previous, end};
  links_[links_[end].previous].next = unit;
  links_[end].previous = unit;
}

}  // namespace tierpool
