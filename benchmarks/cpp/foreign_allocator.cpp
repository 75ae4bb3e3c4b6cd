#include "foreign_allocator.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace tierpool {
namespace {

struct Library {
  const char* name;
  const char* file;
  const char* allocate;
  const char* free;
  const char* remedy;
};

ForeignAllocator open(const Library& library) {
  ForeignAllocator allocator;
  allocator.name = library.name;
  void* handle = dlopen(library.file, RTLD_NOW | RTLD_LOCAL);  // stays open: what it handed out may still be live
  if (handle == nullptr) {
    allocator.problem = std::string(dlerror()) + "; " + library.remedy;
    return allocator;
  }
  allocator.allocate = reinterpret_cast<void* (*)(std::size_t)>(dlsym(handle, library.allocate));
  allocator.free = reinterpret_cast<void (*)(void*)>(dlsym(handle, library.free));
  if (allocator.allocate == nullptr || allocator.free == nullptr) {
    allocator.problem = std::string(library.file) + " has no " + library.allocate + " and " + library.free;
  }
  return allocator;
}

}  // namespace

ForeignAllocator glibc_malloc() {
  ForeignAllocator allocator;
  allocator.name = "glibc";
  allocator.allocate = &std::malloc;
  allocator.free = &std::free;
  return allocator;
}

ForeignAllocator open_mimalloc() {
  return open({"mimalloc", "libmimalloc.so.2", "mi_malloc", "mi_free", "apt-get install libmimalloc2.0"});
}

ForeignAllocator open_jemalloc() {
  return open({"jemalloc", "libjemalloc.so.2", "malloc", "free",
               "apt-get install libjemalloc2, run with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536"});
}

}  // namespace tierpool
