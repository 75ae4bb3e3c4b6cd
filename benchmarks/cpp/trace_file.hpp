#pragma once

#include <string>

#include "tierpool/trace/trace.hpp"

namespace tierpool {

/// Reads a gzip CSV trace: a `# {json}` line, the line `op,id,bytes`, then one event a line.
/// Throws TraceError naming the file and, for a bad event, its line.
[[nodiscard]] Trace read_trace(const std::string& path);

}  // namespace tierpool
