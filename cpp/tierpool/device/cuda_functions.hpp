#pragma once

#include <cstddef>
#include <cstdint>

namespace tierpool {

// What is used of the CUDA driver's binary interface, declared here so that nothing of CUDA is needed to build.
// Values and layouts are those of the driver API reference; they never change once published.

using CuResult = int;
using CuDevice = int;
using CuContext = void*;
using CuStream = void*;
using CuEvent = void*;
using CuAddress = unsigned long long;
using CuMemoryHandle = unsigned long long;

inline constexpr CuResult kCuSuccess = 0;
inline constexpr CuResult kCuOutOfMemory = 2;
inline constexpr CuResult kCuDeinitialized = 4;
inline constexpr CuResult kCuNoDevice = 100;
inline constexpr CuResult kCuInvalidContext = 201;
inline constexpr CuResult kCuNotReady = 600;
inline constexpr CuResult kCuContextIsDestroyed = 709;
inline constexpr CuResult kCuStreamCaptureImplicit = 906;

/// Whether a context is no more, as after cudaDeviceReset: the one of the current context, also of a primary one that
/// nobody has used again, the other of a handle that is passed.
[[nodiscard]] constexpr bool says_context_is_gone(CuResult result) noexcept {
  return result == kCuContextIsDestroyed || result == kCuInvalidContext;
}

inline constexpr int kCuAttributeVirtualMemory = 102;
inline constexpr unsigned kCuEventWithoutTiming = 2;
inline constexpr unsigned kCuHostPortable = 1;
inline constexpr unsigned kCuHostMapped = 2;
inline constexpr unsigned kCuHostWriteCombined = 4;  // of cuMemHostAlloc alone
inline constexpr int kCuCaptureRelaxed = 2;
inline constexpr int kCuNotCapturing = 0;
inline constexpr int kCuPinnedAllocation = 1;
inline constexpr int kCuOnDevice = 1;
inline constexpr int kCuReadWrite = 3;
inline constexpr int kCuMinimumGranularity = 0;

struct CuMemoryLocation {
  int type = kCuOnDevice;
  int id = 0;
};

struct CuMemoryProperties {
  int type = kCuPinnedAllocation;
  int handle_types = 0;
  CuMemoryLocation location;
  void* windows_metadata = nullptr;
  unsigned char compression = 0;
  unsigned char direct_rdma = 0;
  unsigned short usage = 0;
  unsigned char reserved[4] = {};
};
static_assert(sizeof(CuMemoryProperties) == 32);

struct CuMemoryAccess {
  CuMemoryLocation location;
  int flags = kCuReadWrite;
};
static_assert(sizeof(CuMemoryAccess) == 12);

/// The driver's functions by their exported names, suffix and all, so that each is the version declared here.
struct CudaFunctions {
  CuResult (*init)(unsigned flags);
  CuResult (*driver_get_version)(int* version);
  CuResult (*get_error_name)(CuResult error, const char** name);
  CuResult (*get_error_string)(CuResult error, const char** text);

  CuResult (*device_get_count)(int* count);
  CuResult (*device_get)(CuDevice* device, int ordinal);
  CuResult (*device_get_name)(char* name, int length, CuDevice device);
  CuResult (*device_get_attribute)(int* value, int attribute, CuDevice device);
  CuResult (*device_can_access_peer)(int* can, CuDevice device, CuDevice peer);
  CuResult (*device_total_mem)(std::size_t* bytes, CuDevice device);

  CuResult (*primary_ctx_get_state)(CuDevice device, unsigned* flags, int* active);
  CuResult (*primary_ctx_retain)(CuContext* context, CuDevice device);
  CuResult (*primary_ctx_release)(CuDevice device);
  CuResult (*ctx_get_current)(CuContext* context);
  CuResult (*ctx_push_current)(CuContext context);
  CuResult (*ctx_pop_current)(CuContext* context);
  CuResult (*ctx_get_device)(CuDevice* device);
  CuResult (*ctx_synchronize)();

  CuResult (*mem_get_info)(std::size_t* free_bytes, std::size_t* total_bytes);
  CuResult (*mem_alloc)(CuAddress* address, std::size_t bytes);
  CuResult (*mem_free)(CuAddress address);
  CuResult (*mem_copy)(CuAddress destination, CuAddress source, std::size_t bytes);
  CuResult (*mem_copy_async)(CuAddress destination, CuAddress source, std::size_t bytes, CuStream stream);

  CuResult (*mem_copy_peer_async)(CuAddress destination, CuContext destination_context, CuAddress source,
                                  CuContext source_context, std::size_t bytes, CuStream stream);

  CuResult (*mem_host_alloc)(void** pointer, std::size_t bytes, unsigned flags);
  CuResult (*mem_free_host)(void* pointer);
  CuResult (*mem_host_register)(void* pointer, std::size_t bytes, unsigned flags);
  CuResult (*mem_host_unregister)(void* pointer);

  CuResult (*mem_get_allocation_granularity)(std::size_t* bytes, const CuMemoryProperties* properties, int option);
  CuResult (*mem_address_reserve)(CuAddress* address, std::size_t bytes, std::size_t alignment, CuAddress wanted,
                                  unsigned long long flags);
  CuResult (*mem_address_free)(CuAddress address, std::size_t bytes);
  CuResult (*mem_create)(CuMemoryHandle* handle, std::size_t bytes, const CuMemoryProperties* properties,
                         unsigned long long flags);
  CuResult (*mem_release)(CuMemoryHandle handle);
  CuResult (*mem_map)(CuAddress address, std::size_t bytes, std::size_t offset, CuMemoryHandle handle,
                      unsigned long long flags);
  CuResult (*mem_unmap)(CuAddress address, std::size_t bytes);
  CuResult (*mem_set_access)(CuAddress address, std::size_t bytes, const CuMemoryAccess* access, std::size_t count);

  CuResult (*event_create)(CuEvent* event, unsigned flags);
  CuResult (*event_destroy)(CuEvent event);
  CuResult (*event_record)(CuEvent event, CuStream stream);
  CuResult (*event_query)(CuEvent event);
  CuResult (*event_synchronize)(CuEvent event);

  CuResult (*stream_get_ctx)(CuStream stream, CuContext* context);
  CuResult (*stream_is_capturing)(CuStream stream, int* status);
  CuResult (*stream_synchronize)(CuStream stream);
  CuResult (*stream_wait_event)(CuStream stream, CuEvent event, unsigned flags);
  CuResult (*thread_exchange_stream_capture_mode)(int* mode);

  // Since CUDA 12.0; null before.
  CuResult (*ctx_get_id)(CuContext context, unsigned long long* id);
  CuResult (*stream_get_id)(CuStream stream, unsigned long long* id);
};

}  // namespace tierpool
