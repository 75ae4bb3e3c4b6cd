#pragma once

#include <cstddef>
#include <string>

namespace tierpool {

/// A general-purpose allocator to compare with. Its library is opened with local symbols, so that it replaces malloc
/// for nobody else in the process.
struct ForeignAllocator {
  std::string name;
  void* (*allocate)(std::size_t) = nullptr;
  void (*free)(void*) = nullptr;
  std::string problem;  ///< why it cannot be used here; empty when it can
};

[[nodiscard]] ForeignAllocator glibc_malloc();
/// Debian's libmimalloc2.0.
[[nodiscard]] ForeignAllocator open_mimalloc();
/// Debian's libjemalloc2; needs more static thread storage than glibc leaves for libraries opened at run time.
[[nodiscard]] ForeignAllocator open_jemalloc();

}  // namespace tierpool
