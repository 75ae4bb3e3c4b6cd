#include "trace_file.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kFirstEventLine = 3;

}  // namespace

Trace read_trace(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), &gzclose);
  if (!file) {
    throw TraceError(path + ": cannot be opened");
  }
  std::vector<std::uint8_t> ops;
  std::vector<std::uint64_t> ids;
  std::vector<std::uint64_t> bytes;
  std::array<char, 4096> text{};
  for (std::uint64_t line = 1; gzgets(file.get(), text.data(), static_cast<int>(text.size())) != nullptr; ++line) {
    if (line < kFirstEventLine) {
      continue;
    }
    char op = 0;
    std::uint64_t id = 0;
    std::uint64_t size = 0;
    if (std::sscanf(text.data(), "%c,%" SCNu64 ",%" SCNu64, &op, &id, &size) != 3) {
      throw TraceError(path + ": line " + std::to_string(line) + " is no event");
    }
    ops.push_back(static_cast<std::uint8_t>(op));
    ids.push_back(id);
    bytes.push_back(size);
  }
  if (gzeof(file.get()) == 0) {
    throw TraceError(path + ": the file ends early or is corrupt");
  }
  return Trace(ops, ids, bytes, kFirstEventLine);
}

std::shared_ptr<const Trace> shipped_trace(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const Trace>> traces;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<const Trace>& trace = traces[name];
  if (!trace) {
    trace = std::make_shared<const Trace>(read_trace(std::string(TIERPOOL_TRACE_FOLDER) + "/" + name + ".csv.gz"));
  }
  return trace;
}

std::vector<std::uint32_t> trace_left_live(const Trace& trace) {
  std::vector<bool> is_live(trace.slot_count());
  for (const TraceEvent& event : trace.events()) {
    is_live[event.slot] = event.allocates;
  }
  std::vector<std::uint32_t> slots;
  for (std::uint32_t slot = 0; slot < trace.slot_count(); ++slot) {
    if (is_live[slot]) {
      slots.push_back(slot);
    }
  }
  return slots;
}

std::vector<std::uint64_t> middle_sizes(const Trace& trace, std::size_t count) {
  std::vector<std::uint64_t> sizes;
  for (const TraceEvent& event : trace.events()) {
    if (event.allocates) {
      sizes.push_back(event.bytes);
    }
  }
  const std::size_t first = (sizes.size() - std::min(count, sizes.size())) / 2;
  return {sizes.begin() + static_cast<std::ptrdiff_t>(first),
          sizes.begin() + static_cast<std::ptrdiff_t>(std::min(first + count, sizes.size()))};
}

}  // namespace tierpool
