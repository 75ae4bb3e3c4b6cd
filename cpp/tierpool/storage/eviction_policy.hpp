#pragma once

#include <functional>
#include <optional>

#include "tierpool/storage/unit_table.hpp"

namespace tierpool {

/// Which unit a cache gives up next. Told everything in order, under the cache's lock: no call may block.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  /// A forward needs the unit, which is in the cache from now on if it was not.
  virtual void requested(UnitId unit) noexcept = 0;
  /// The unit is being fetched, but nothing has asked for it yet.
  virtual void prefetched(UnitId unit) noexcept = 0;
  /// The unit is no longer in the cache.
  virtual void removed(UnitId unit) noexcept = 0;
  /// The unit to give up, one of the cache's for which `may_go` holds; nothing changes. None when there is none.
  [[nodiscard]] virtual std::optional<UnitId> victim(const std::function<bool(UnitId)>& may_go) const = 0;
};

}  // namespace tierpool
