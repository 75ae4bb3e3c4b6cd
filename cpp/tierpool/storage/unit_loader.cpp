#include "tierpool/storage/unit_loader.hpp"

#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {

UnitLoader::UnitLoader(DirectReader& reader, const UnitTable& units, const SlotPool& slots)
    : reader_(reader), units_(units), slots_(slots) {
  if (units.largest_unit_bytes() > slots.slot_bytes()) {
    throw ConfigError("The largest unit has " + std::to_string(units.largest_unit_bytes()) +
                      " bytes, but a slot only " + std::to_string(slots.slot_bytes()) + ": use larger slots");
  }
}

ReadHandle UnitLoader::load(UnitId unit, SlotId slot, ReadPriority priority) {
  std::vector<ReadPiece> pieces;
  std::uint64_t address = slots_.address(slot);
  for (const Extent& extent : units_.extents(unit)) {
    pieces.push_back({extent.file_index, extent.offset_bytes, extent.size_bytes, address});
    address += extent.size_bytes;
  }
  return reader_.submit(pieces, priority);
}

}  // namespace tierpool
