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

std::int64_t modified_ns(const struct stat& status) noexcept {
  return static_cast<std::int64_t>(status.st_mtime) * 1'000'000'000;
}

}  // namespace tierpool
