#include <sys/mman.h>
#include <unistd.h>

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

}  // namespace tierpool
