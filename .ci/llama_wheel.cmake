# Read by llama-cpp-python's own build, at its project(): a wheel for the tests in one minute instead of twenty.

set(LLAVA_BUILD OFF)
set(LLAMA_BUILD_COMMON OFF) # forced on in the cache, but an ordinary variable comes first; Python uses nothing of it
set(GGML_NATIVE OFF) # x86-64-v3, so that a kept wheel also runs on the next machine
set(GGML_OPENMP OFF) # threads are then bound by the engine and wait as it says: the path with more of our own in it

set(CMAKE_C_COMPILER_LAUNCHER ccache)
set(CMAKE_CXX_COMPILER_LAUNCHER ccache)

# The arithmetic on weights is in C; libllama only builds graphs.
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
cmake_language(DEFER CALL target_compile_options llama PRIVATE -O0)
