#include "tierpool/device/page_touch.hpp"

#include <unistd.h>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

// Volatile, because a compiler that knew the operand to be 0 could turn the atomic write into a mere load.
const volatile unsigned char kNothing = 0;

}  // namespace

void touch_pages(std::uint64_t address, std::uint64_t bytes) noexcept {
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t end = address + bytes;
  for (std::uint64_t page = align_down(address, page_bytes); page < end; page += page_bytes) {
    // A compiler builtin, because std::atomic_ref is missing from some C++20 libraries still in use.
    __atomic_fetch_or(static_cast<unsigned char*>(pointer_at(page)), kNothing, __ATOMIC_RELAXED);
  }
}

}  // namespace tierpool
