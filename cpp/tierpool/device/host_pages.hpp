#pragma once

#include <cstdint>

namespace tierpool {

// What systems do differently about host memory. One source file per system, chosen by the build:
// host_pages_linux.cpp, host_pages_posix.cpp. Ranges are whole pages of private anonymous mappings.
// Every function is thread-safe.

/// Memory that processes of this machine, or of this process's control group when that has less, can use; in bytes.
struct HostMemory {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;  ///< an estimate of what can be taken without swapping
};

[[nodiscard]] HostMemory host_memory();

/// Asks for huge pages behind the range; a system without them ignores it.
void advise_huge_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

/// Puts memory behind the range, in the calling thread; contents are kept. False when there is no memory left, or no
/// such mapping; the range may then be partly populated.
[[nodiscard]] bool populate_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

/// Gives the memory behind the range back; it reads zero afterwards. False when the system refused.
[[nodiscard]] bool discard_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

}  // namespace tierpool
