#include "trace_file.hpp"

#include <zlib.h>

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>
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

}  // namespace tierpool
