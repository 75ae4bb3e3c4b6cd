#pragma once

#include "tierpool/storage/slot_pool.hpp"
#include "tierpool/storage/unit_table.hpp"

namespace tierpool {

/// How an engine sees the bytes of a slot. Calls for different units may come from different threads at once.
class SlotBinding {
 public:
  virtual ~SlotBinding() = default;

  /// Shows the slot where the engine expects the unit. The unit's bytes are in the slot, completely.
  /// Throws Error; the unit is not shown then.
  virtual void bind(UnitId unit, SlotId slot) = 0;
  /// Ends that, for good: once it returns, nothing reads the slot through the unit's place.
  /// Throws Error; the slot may still be seen then and must not be filled again.
  virtual void unbind(UnitId unit) = 0;
};

}  // namespace tierpool
