#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tierpool {

/// A general-purpose allocator to compare with. Its library is opened with local symbols, so that it replaces malloc
/// for nobody else in the process. Thread-safe, as malloc is.
struct ForeignAllocator {
  using Live = void*;

  std::string name;
  void* (*allocate_function)(std::size_t) = nullptr;
  void (*free_function)(void*) = nullptr;
  std::string problem;  ///< why it cannot be used here; empty when it can

  void allocate(std::uint64_t bytes, Live& live) const { live = allocate_function(bytes); }
  void free(Live live) const { free_function(live); }
};

/// The C library's malloc and the peers that Debian 12 ships, in the order of the tables. One that is not installed,
/// or needs more static thread storage than it gets (see README.md), is listed with its problem.
[[nodiscard]] std::vector<ForeignAllocator> foreign_allocators();

}  // namespace tierpool
