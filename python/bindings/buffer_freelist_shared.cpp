#include <array>
#include <cstddef>

#include "buffer_freelist.hpp"

namespace tierpool::bindings {
namespace {

// A batch of a thousand buffers, turned into objects again and again, needs no malloc; more than that is rare.
constexpr std::size_t kMaxKept = 1024;

// Guarded by the GIL. Never freed: buffers die until the process ends.
std::array<void*, kMaxKept> kept;
std::size_t kept_count = 0;

}  // namespace

void* take_recycled() noexcept { return kept_count == 0 ? nullptr : kept[--kept_count]; }

bool recycle(void* memory) noexcept {
  if (kept_count == kMaxKept) {
    return false;
  }
  kept[kept_count++] = memory;
  return true;
}

}  // namespace tierpool::bindings
