#include "tierpool/storage/direct_file.hpp"

#include <sys/stat.h>

namespace tierpool {

bool read_file_state(int file_descriptor, FileState& state) noexcept {
  struct stat status {};
  if (fstat(file_descriptor, &status) != 0) {
    return false;
  }
  state = {.device = static_cast<std::uint64_t>(status.st_dev),
           .inode = status.st_ino,
           .size_bytes = static_cast<std::uint64_t>(status.st_size),
           .modified_ns = modified_ns(status),
           .link_count = status.st_nlink,
           .is_regular = S_ISREG(status.st_mode)};
  return true;
}

}  // namespace tierpool
