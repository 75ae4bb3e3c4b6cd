#include "tierpool/base/sparse_table.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <new>

namespace tierpool {

SparseTable::SparseTable(std::size_t entry_count) : entry_count_(std::max<std::size_t>(entry_count, 1)) {
  if (entry_count_ > std::numeric_limits<std::size_t>::max() / sizeof(std::uint32_t)) {
    throw std::bad_alloc();
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* address = mmap(nullptr, entry_count_ * sizeof(std::uint32_t), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (address == MAP_FAILED) {
    throw std::bad_alloc();
  }
  entries_ = static_cast<std::uint32_t*>(address);
}

SparseTable::~SparseTable() { munmap(entries_, entry_count_ * sizeof(std::uint32_t)); }

}  // namespace tierpool
