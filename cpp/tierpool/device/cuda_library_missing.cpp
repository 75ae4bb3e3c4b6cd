#include "tierpool/device/cuda_library.hpp"

namespace tierpool {

void* open_cuda_library(const std::string&, std::string& reason) {
  reason = "CUDA is not supported on this system: it needs Linux";
  return nullptr;
}

void* find_cuda_function(void*, const char*) { return nullptr; }

const char* default_cuda_library() noexcept { return ""; }

}  // namespace tierpool
