#include <sys/mman.h>

#include <cerrno>

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

}  // namespace tierpool
