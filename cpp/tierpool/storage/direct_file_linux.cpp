#include <fcntl.h>
#include <sys/stat.h>

#include "tierpool/storage/direct_file.hpp"

namespace tierpool {

int open_direct(const char* path) noexcept { return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT); }

void forget_cached(int file_descriptor, std::uint64_t offset_bytes, std::uint64_t bytes) noexcept {
  posix_fadvise(file_descriptor, static_cast<off_t>(offset_bytes), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

bool read_file_state(int file_descriptor, FileState& state) noexcept {
  struct stat status {};
  if (fstat(file_descriptor, &status) != 0) {
    return false;
  }
  state = {.device = static_cast<std::uint64_t>(status.st_dev),
           .inode = status.st_ino,
           .size_bytes = static_cast<std::uint64_t>(status.st_size),
           .modified_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec,
           .link_count = status.st_nlink,
           .is_regular = S_ISREG(status.st_mode)};
  return true;
}

}  // namespace tierpool
