#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/storage/extent.hpp"

namespace tierpool::testing {

[[nodiscard]] inline std::uint64_t system_page_bytes() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

/// Bytes in which no two pages are alike.
[[nodiscard]] inline std::vector<unsigned char> random_bytes(std::uint64_t count, std::uint64_t seed) {
  std::vector<unsigned char> bytes(count);
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < count; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(&bytes[i], &word, count - i < 8 ? count - i : 8);
  }
  return bytes;
}

/// Whether memory holds the bytes of a file in the given range; behind the file's end, zeros.
[[nodiscard]] inline bool holds(std::uint64_t address, const std::vector<unsigned char>& file, std::uint64_t offset,
                                std::uint64_t bytes) {
  const auto* memory = static_cast<const unsigned char*>(pointer_at(address));
  const std::uint64_t in_file = offset >= file.size() ? 0 : file.size() - offset < bytes ? file.size() - offset : bytes;
  if (std::memcmp(memory, file.data() + offset, in_file) != 0) {
    return false;
  }
  for (std::uint64_t i = in_file; i < bytes; ++i) {
    if (memory[i] != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace tierpool::testing
