#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <limits>

#include "tierpool/base/address.hpp"
#include "tierpool/device/host_pages.hpp"
#include "tierpool/device/linux_memory.hpp"
#include "tierpool/device/page_touch.hpp"

namespace tierpool {
namespace {

// Linux 5.14; the number is part of the kernel's interface, and older C libraries do not name it.
constexpr int kMadvPopulateWrite = 23;

bool can_populate() noexcept { return madvise(nullptr, 0, kMadvPopulateWrite) == 0; }

}  // namespace

HostMemory host_memory() { return read_linux_memory(""); }

void advise_huge_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  // EINVAL: a kernel built without huge pages. Nothing is lost but speed.
  static_cast<void>(madvise(pointer_at(address), bytes, MADV_HUGEPAGE));
}

bool populate_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  int result = 0;
  do {
    result = madvise(pointer_at(address), bytes, kMadvPopulateWrite);
  } while (result != 0 && errno == EINTR);
  // EINVAL is also the answer for a range that cannot be written, where touching would be fatal: ask which it was.
  if (result != 0 && errno == EINVAL && !can_populate()) {
    touch_pages(address, bytes);
    return true;
  }
  return result == 0;
}

bool discard_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  return madvise(pointer_at(address), bytes, MADV_DONTNEED) == 0;
}

int create_shared_memory(std::uint64_t bytes) noexcept {
  const int file_descriptor = memfd_create("tierpool", MFD_CLOEXEC);
  if (file_descriptor >= 0 && ftruncate(file_descriptor, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    close(file_descriptor);
    errno = error;
    return -1;
  }
  return file_descriptor;
}

void refuse_huge_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  static_cast<void>(madvise(pointer_at(address), bytes, MADV_NOHUGEPAGE));  // EINVAL: a kernel that has none
}

bool discard_shared_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  return bytes == 0 || madvise(pointer_at(address), bytes, MADV_REMOVE) == 0;
}

bool move_pages_over(std::uint64_t address, std::uint64_t bytes, std::uint64_t target) noexcept {
  const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  return mremap(pointer_at(address), bytes, bytes, flags, pointer_at(target)) != MAP_FAILED;
}

HostMappings host_mappings() {
  HostMappings mappings{.used = 0, .limit = std::numeric_limits<std::uint64_t>::max()};
  std::ifstream("/proc/sys/vm/max_map_count") >> mappings.limit;
  std::ifstream table("/proc/self/maps");
  mappings.used = static_cast<std::uint64_t>(
      std::count(std::istreambuf_iterator<char>(table), std::istreambuf_iterator<char>(), '\n'));
  return mappings;
}

}  // namespace tierpool
