#pragma once

#include <cstdint>

#include "tierpool/device/cuda_functions.hpp"

// A CUDA driver over host memory: two devices of 1 GiB, of which the second has no virtual memory management. It
// exports what CudaDriver looks up, is as strict as the reference says, and is steered by these calls. Thread-safe.

namespace tierpool::testing {

/// The path to open it by.
inline constexpr const char* kFakeCudaLibrary = TIERPOOL_FAKE_CUDA_LIBRARY;
inline constexpr std::uint64_t kFakeCudaBytes = std::uint64_t{1} << 30;

extern "C" {
/// Everything as at the start: devices, counters, no orders to fail. What is allocated stays so.
void fake_cuda_restart();
void fake_cuda_set_device_count(int count);
void fake_cuda_set_version(int version);
/// Whether the devices reach each other's memory.
void fake_cuda_set_peers(bool peers);
/// The next `after` calls of this exported name work, the `times` behind them answer `result` and change nothing.
void fake_cuda_fail(const char* name, CuResult result, std::uint64_t after, std::uint64_t times);
/// As cudaDeviceReset: the primary context and the memory that belongs to it are gone.
void fake_cuda_reset_device(int device);
/// Whether events stay pending, and copies are not made, until something synchronises with them: each stream for
/// itself, unless it waits for another's event. The default stream is ordered with no other.
void fake_cuda_hold_work(bool hold);

/// Whether waits for a device or an event block, as behind work that does not end, until this is called with false; so
/// does giving memory back, which may wait for the device. One that nobody ends in a minute is misuse.
void fake_cuda_hold_waits(bool hold);
/// Threads in such a wait.
[[nodiscard]] int fake_cuda_waiting_count();

[[nodiscard]] CuContext fake_cuda_create_context(int device);
/// One that is not ordered with the default stream.
[[nodiscard]] std::uint64_t fake_cuda_create_stream(int device);
void fake_cuda_make_blocking(std::uint64_t stream);
void fake_cuda_destroy_stream(std::uint64_t stream);
/// A created stream, or the calling thread's default one (2).
void fake_cuda_set_capturing(std::uint64_t stream, bool capturing);

[[nodiscard]] std::uint64_t fake_cuda_calls(const char* name);
/// Physical bytes in use on a device.
[[nodiscard]] std::uint64_t fake_cuda_used_bytes(int device);
/// Reserved addresses, registered and allocated host bytes, live events: what a test must leave at 0.
[[nodiscard]] std::uint64_t fake_cuda_reserved_bytes();
[[nodiscard]] std::uint64_t fake_cuda_pinned_bytes();
[[nodiscard]] std::uint64_t fake_cuda_event_count();
[[nodiscard]] int fake_cuda_retain_count(int device);
/// Calls no driver would accept.
[[nodiscard]] std::uint64_t fake_cuda_misuse_count();
}

}  // namespace tierpool::testing
