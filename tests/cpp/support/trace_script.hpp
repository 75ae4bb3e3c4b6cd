#pragma once

#include <cstdint>
#include <vector>

#include "tierpool/trace/trace.hpp"

namespace tierpool::testing {

/// One line of a trace file.
struct TraceLine {
  char op = 'a';
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;
};

/// The trace of a file whose first event stands in line 3.
inline Trace make_trace(const std::vector<TraceLine>& lines) {
  std::vector<std::uint8_t> ops;
  std::vector<std::uint64_t> ids;
  std::vector<std::uint64_t> bytes;
  for (const TraceLine& line : lines) {
    ops.push_back(static_cast<std::uint8_t>(line.op));
    ids.push_back(line.id);
    bytes.push_back(line.bytes);
  }
  return Trace(ops, ids, bytes, 3);
}

}  // namespace tierpool::testing
