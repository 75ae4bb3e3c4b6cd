#pragma once

#include "tierpool/storage/direct_reader.hpp"
#include "tierpool/storage/slot_pool.hpp"
#include "tierpool/storage/unit_table.hpp"

namespace tierpool {

/// Brings units into slots. Every call is thread-safe.
class UnitLoader {
 public:
  /// Throws ConfigError when a unit is larger than a slot. Everything given outlives the loader.
  UnitLoader(DirectReader& reader, const UnitTable& units, const SlotPool& slots);

  /// Begins to read a unit into a slot that nothing shows and no other read writes to.
  [[nodiscard]] ReadHandle load(UnitId unit, SlotId slot, ReadPriority priority);

  [[nodiscard]] DirectReader& reader() const noexcept { return reader_; }
  [[nodiscard]] const UnitTable& units() const noexcept { return units_; }

 private:
  DirectReader& reader_;
  const UnitTable& units_;
  const SlotPool& slots_;
};

}  // namespace tierpool
