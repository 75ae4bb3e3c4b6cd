#include "foreign_allocator.hpp"

#include <dlfcn.h>

#include <array>
#include <cstdlib>

namespace tierpool {
namespace {

struct Library {
  const char* name;
  const char* file;
  const char* allocate;
  const char* free;
  const char* package;
};

constexpr std::array kLibraries = {
    Library{"mimalloc", "libmimalloc.so.2", "mi_malloc", "mi_free", "libmimalloc2.0"},
    Library{"jemalloc", "libjemalloc.so.2", "malloc", "free", "libjemalloc2"},
    Library{"tcmalloc", "libtcmalloc_minimal.so.4", "tc_malloc", "tc_free", "libtcmalloc-minimal4"},
    Library{"oneTBB", "libtbbmalloc.so.2", "scalable_malloc", "scalable_free", "libtbbmalloc2"},
};

ForeignAllocator open(const Library& library) {
  ForeignAllocator allocator;
  allocator.name = library.name;
  void* handle = dlopen(library.file, RTLD_NOW | RTLD_LOCAL);  // stays open: what it handed out may still be live
  if (handle == nullptr) {
    allocator.problem = std::string(dlerror()) + "; apt-get install " + library.package +
                        ", run with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536";
    return allocator;
  }
  allocator.allocate_function = reinterpret_cast<void* (*)(std::size_t)>(dlsym(handle, library.allocate));
  allocator.free_function = reinterpret_cast<void (*)(void*)>(dlsym(handle, library.free));
  if (allocator.allocate_function == nullptr || allocator.free_function == nullptr) {
    allocator.problem = std::string(library.file) + " has no " + library.allocate + " and " + library.free;
  }
  return allocator;
}

}  // namespace

std::vector<ForeignAllocator> foreign_allocators() {
  std::vector<ForeignAllocator> allocators = {
      {.name = "glibc", .allocate_function = &std::malloc, .free_function = &std::free, .problem = ""}};
  for (const Library& library : kLibraries) {
    allocators.push_back(open(library));
  }
  return allocators;
}

}  // namespace tierpool
