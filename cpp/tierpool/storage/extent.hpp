#pragma once

#include <cstdint>

namespace tierpool {

/// A stretch of one of the files that weights come from.
struct Extent {
  std::uint32_t file_index = 0;
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;

  [[nodiscard]] std::uint64_t end_bytes() const noexcept { return offset_bytes + size_bytes; }
  bool operator==(const Extent&) const = default;
};

}  // namespace tierpool
