#include <dlfcn.h>

#include <string_view>

#include "tierpool/device/cuda_library.hpp"

namespace tierpool {
namespace {

constexpr std::string_view kVersioned = ".so.1";
constexpr std::size_t kVersionLength = 2;

bool is_versioned(std::string_view path) {
  return path.size() >= kVersioned.size() && path.substr(path.size() - kVersioned.size()) == kVersioned;
}

}  // namespace

void* open_cuda_library(const std::string& path, std::string& reason) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) {
    return library;
  }
  const char* error = dlerror();
  const std::string what = error == nullptr ? path : error;
  if (is_versioned(path)) {
    library = dlopen(path.substr(0, path.size() - kVersionLength).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    reason = "no CUDA driver library: " + what + "; install the NVIDIA driver, in a container with its GPUs passed in";
  }
  return library;
}

void* find_cuda_function(void* library, const char* name) { return dlsym(library, name); }

const char* default_cuda_library() noexcept { return "libcuda.so.1"; }

}  // namespace tierpool
