#pragma once

#include <sys/stat.h>

#include <cstdint>

namespace tierpool {

// What systems do differently about reading files past the page cache. One source file per system, chosen by the build:
// direct_file_linux.cpp, direct_file_posix.cpp. Every function is thread-safe.

/// Opens for reading past the page cache. The descriptor, or -1 with errno set where that is not to be had.
[[nodiscard]] int open_direct(const char* path) noexcept;

/// Has the page cache forget a range that was read through it, if the system can.
void forget_cached(int file_descriptor, std::uint64_t offset_bytes, std::uint64_t bytes) noexcept;

/// When a file was written to, as finely as the system says.
[[nodiscard]] std::int64_t modified_ns(const struct stat& status) noexcept;

/// What tells one state of a file from another.
struct FileState {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;
  std::uint64_t link_count = 0;
  bool is_regular = false;

  bool operator==(const FileState&) const = default;
};

/// The same everywhere, in direct_file.cpp. False with errno set when the system cannot say.
[[nodiscard]] bool read_file_state(int file_descriptor, FileState& state) noexcept;

}  // namespace tierpool
