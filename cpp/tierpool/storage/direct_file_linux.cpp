#include <fcntl.h>
#include <sys/stat.h>

#include "tierpool/storage/direct_file.hpp"

namespace tierpool {

int open_direct(const char* path) noexcept { return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT); }

void forget_cached(int file_descriptor, std::uint64_t offset_bytes, std::uint64_t bytes) noexcept {
  posix_fadvise(file_descriptor, static_cast<off_t>(offset_bytes), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

std::int64_t modified_ns(const struct stat& status) noexcept {
  return status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
}

}  // namespace tierpool
