#pragma once

#include <cstdint>

namespace tierpool {

// What systems do differently about host memory. One source file per system, chosen by the build:
// host_pages_linux.cpp, host_pages_posix.cpp. Ranges are whole pages of private anonymous mappings
// where nothing else is said. Every function is thread-safe.

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

/// Shared memory without a name, `bytes` long, empty. Its descriptor, or -1 with errno set.
[[nodiscard]] int create_shared_memory(std::uint64_t bytes) noexcept;

/// Keeps huge pages from behind the range, of any kind of mapping.
void refuse_huge_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

/// discard_pages() for a mapping of create_shared_memory(), in every process and at every address that maps it.
[[nodiscard]] bool discard_shared_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

/// Moves read-only pages over whatever is mapped at `target`, which shows either what it did before or all of them.
/// False with errno set when the system refused; nothing has moved then.
[[nodiscard]] bool move_pages_over(std::uint64_t address, std::uint64_t bytes, std::uint64_t target) noexcept;

/// Mappings of this process and how many it may have; an unlimited system says 2^64 - 1.
struct HostMappings {
  std::uint64_t used = 0;
  std::uint64_t limit = 0;
};

[[nodiscard]] HostMappings host_mappings();

}  // namespace tierpool
