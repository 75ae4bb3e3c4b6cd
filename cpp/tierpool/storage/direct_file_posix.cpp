#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "tierpool/storage/direct_file.hpp"

namespace tierpool {

int open_direct(const char*) noexcept {
  errno = ENOTSUP;
  return -1;
}

void forget_cached(int, std::uint64_t, std::uint64_t) noexcept {}

bool read_file_state(int file_descriptor, FileState& state) noexcept {
  struct stat status {};
  if (fstat(file_descriptor, &status) != 0) {
    return false;
  }
  state = {.device = static_cast<std::uint64_t>(status.st_dev),
           .inode = status.st_ino,
           .size_bytes = static_cast<std::uint64_t>(status.st_size),
           .modified_ns = static_cast<std::int64_t>(status.st_mtime) * 1'000'000'000,
           .link_count = status.st_nlink,
           .is_regular = S_ISREG(status.st_mode)};
  return true;
}

}  // namespace tierpool
