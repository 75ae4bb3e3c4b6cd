#include "tierpool/base/sparse_array.hpp"

#include <sys/mman.h>

namespace tierpool {

void* reserve_sparse_bytes(std::size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (address == MAP_FAILED) {
    throw std::bad_alloc();
  }
  return address;
}

void release_sparse_bytes(void* address, std::size_t bytes) noexcept { munmap(address, bytes); }

}  // namespace tierpool
