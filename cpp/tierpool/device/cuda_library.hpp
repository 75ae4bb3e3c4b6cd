#pragma once

#include <string>

namespace tierpool {

// How systems open the CUDA driver's library. One source file per system, chosen by the build: cuda_library_posix.cpp;
// cuda_library_missing.cpp where there is no CUDA.

/// A handle for find_cuda_function(); null with `reason` set. A name with the version `.so.1` that is not there is
/// tried as `.so` too, for systems that have only that. The library is never closed: it has threads of its own.
[[nodiscard]] void* open_cuda_library(const std::string& path, std::string& reason);

/// Null when the library has no such function.
[[nodiscard]] void* find_cuda_function(void* library, const char* name);

/// Where the driver is looked for unless told otherwise.
[[nodiscard]] const char* default_cuda_library() noexcept;

}  // namespace tierpool
