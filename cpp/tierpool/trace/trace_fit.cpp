#include "tierpool/trace/trace_fit.hpp"

#include <algorithm>
#include <vector>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPrecision = 1000;  // the last step is at most 1/1000 of the result

struct LiveBlock {
  std::uint32_t node = kNoNode;
  std::uint32_t generation = 0;
};

}  // namespace

bool serves_trace(const Trace& trace, std::uint64_t capacity_bytes, Placement placement) {
  BlockAllocator blocks(capacity_bytes, placement);
  std::vector<LiveBlock> live(trace.slot_count());
  for (const TraceEvent& event : trace.events()) {
    LiveBlock& own = live[event.slot];
    if (!event.allocates) {
      blocks.free(own.node, own.generation);
      continue;
    }
    const Block block = blocks.allocate(event.bytes);
    if (!block) {
      return false;
    }
    own = {block.node, block.generation};
  }
  return true;
}

std::uint64_t fit_capacity_bytes(const Trace& trace, Placement placement) {
  const std::uint64_t least_units =
      std::max<std::uint64_t>(align_up(trace.peak_live_bytes(), kUnitBytes) / kUnitBytes, 1);
  const auto serves = [&](std::uint64_t units) { return serves_trace(trace, units * kUnitBytes, placement); };
  if (serves(least_units)) {
    return least_units * kUnitBytes;
  }
  std::uint64_t failing_units = least_units;
  std::uint64_t serving_units = 2 * least_units;
  while (!serves(serving_units)) {
    failing_units = serving_units;
    serving_units *= 2;
  }
  while (serving_units - failing_units > std::max<std::uint64_t>(serving_units / kPrecision, 1)) {
    const std::uint64_t middle_units = failing_units + (serving_units - failing_units) / 2;
    (serves(middle_units) ? serving_units : failing_units) = middle_units;
  }
  return serving_units * kUnitBytes;
}

}  // namespace tierpool
