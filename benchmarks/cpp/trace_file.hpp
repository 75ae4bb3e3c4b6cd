#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tierpool/trace/trace.hpp"

namespace tierpool {

/// Reads a gzip CSV trace: a `# {json}` line, the line `op,id,bytes`, then one event a line.
/// Throws TraceError naming the file and, for a bad event, its line.
[[nodiscard]] Trace read_trace(const std::string& path);

/// A trace of this repository, read on first use and kept. Thread-safe. Throws as read_trace().
[[nodiscard]] std::shared_ptr<const Trace> shipped_trace(const std::string& name);

/// Their names.
inline constexpr std::array kShippedTraces = {"llama-1b-decode", "qwen3-moe-decode", "gpt2-train-varlen"};

/// The slots whose last allocation is never freed.
[[nodiscard]] std::vector<std::uint32_t> trace_left_live(const Trace& trace);
/// `count` consecutive requests from the middle of a trace, in bytes.
[[nodiscard]] std::vector<std::uint64_t> middle_sizes(const Trace& trace, std::size_t count);

}  // namespace tierpool
