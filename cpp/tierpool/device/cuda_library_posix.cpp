#include <dlfcn.h>

#include "tierpool/device/cuda_library.hpp"

namespace tierpool {

void* open_cuda_library(const std::string& path, std::string& reason) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    reason = "no CUDA driver library: " + std::string(error == nullptr ? path : error) +
             "; install the NVIDIA driver, in a container with its GPUs passed in";
  }
  return library;
}

void* find_cuda_function(void* library, const char* name) { return dlsym(library, name); }

const char* default_cuda_library() noexcept { return "libcuda.so.1"; }

}  // namespace tierpool
