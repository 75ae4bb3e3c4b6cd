#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>

#include "tierpool/base/address.hpp"
#include "tierpool/device/host_pages.hpp"
#include "tierpool/device/page_touch.hpp"

namespace tierpool {

HostMemory host_memory() {
  const auto pages = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES));
  const std::uint64_t total_bytes = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  // POSIX knows no measure of available memory; the system refuses what it does not have.
  return {.total_bytes = total_bytes, .available_bytes = total_bytes};
}

void advise_huge_pages(std::uint64_t, std::uint64_t) noexcept {}

bool populate_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  touch_pages(address, bytes);
  return true;
}

bool discard_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  // A fresh mapping in its place: madvise() may keep old contents on these systems.
  void* range = pointer_at(address);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  return bytes == 0 || mmap(range, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == range;
}

int create_shared_memory(std::uint64_t bytes) noexcept {
  static std::atomic<unsigned> next_number{0};
  std::array<char, 64> name{};
  std::snprintf(name.data(), name.size(), "/tierpool-%ld-%u", static_cast<long>(getpid()), next_number.fetch_add(1));
  const int file_descriptor = shm_open(name.data(), O_RDWR | O_CREAT | O_EXCL, 0600);
  if (file_descriptor < 0) {
    return -1;
  }
  shm_unlink(name.data());
  if (ftruncate(file_descriptor, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    close(file_descriptor);
    errno = error;
    return -1;
  }
  return file_descriptor;
}

void refuse_huge_pages(std::uint64_t, std::uint64_t) noexcept {}

// POSIX has no call for it.
bool discard_shared_pages(std::uint64_t, std::uint64_t bytes) noexcept { return bytes == 0; }

bool move_pages_over(std::uint64_t address, std::uint64_t bytes, std::uint64_t target) noexcept {
  // Not in one step, as there is none: the target must not be read meanwhile.
  void* range = pointer_at(target);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap(range, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
    return false;
  }
  std::memcpy(range, pointer_at(address), bytes);
  return mprotect(range, bytes, PROT_READ) == 0 && munmap(pointer_at(address), bytes) == 0;
}

HostMappings host_mappings() { return {.used = 0, .limit = std::numeric_limits<std::uint64_t>::max()}; }

}  // namespace tierpool
