#include "tierpool/device/cuda_driver.hpp"

#include <array>
#include <cstdlib>
#include <cstring>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr int kOldestVersion = 11000;  // from here on every function below has the form declared

std::atomic<bool> process_ends{false};

struct Symbol {
  const char* name;
  std::size_t offset;
};

constexpr std::array kSymbols{
    Symbol{"cuInit", offsetof(CudaFunctions, init)},
    Symbol{"cuDriverGetVersion", offsetof(CudaFunctions, driver_get_version)},
    Symbol{"cuGetErrorName", offsetof(CudaFunctions, get_error_name)},
    Symbol{"cuGetErrorString", offsetof(CudaFunctions, get_error_string)},
    Symbol{"cuDeviceGetCount", offsetof(CudaFunctions, device_get_count)},
    Symbol{"cuDeviceGet", offsetof(CudaFunctions, device_get)},
    Symbol{"cuDeviceGetName", offsetof(CudaFunctions, device_get_name)},
    Symbol{"cuDeviceGetAttribute", offsetof(CudaFunctions, device_get_attribute)},
    Symbol{"cuDeviceTotalMem_v2", offsetof(CudaFunctions, device_total_mem)},
    Symbol{"cuDeviceCanAccessPeer", offsetof(CudaFunctions, device_can_access_peer)},
    Symbol{"cuDevicePrimaryCtxGetState", offsetof(CudaFunctions, primary_ctx_get_state)},
    Symbol{"cuDevicePrimaryCtxRetain", offsetof(CudaFunctions, primary_ctx_retain)},
    Symbol{"cuDevicePrimaryCtxRelease_v2", offsetof(CudaFunctions, primary_ctx_release)},
    Symbol{"cuCtxGetCurrent", offsetof(CudaFunctions, ctx_get_current)},
    Symbol{"cuCtxPushCurrent_v2", offsetof(CudaFunctions, ctx_push_current)},
    Symbol{"cuCtxPopCurrent_v2", offsetof(CudaFunctions, ctx_pop_current)},
    Symbol{"cuCtxGetDevice", offsetof(CudaFunctions, ctx_get_device)},
    Symbol{"cuCtxSynchronize", offsetof(CudaFunctions, ctx_synchronize)},
    Symbol{"cuMemGetInfo_v2", offsetof(CudaFunctions, mem_get_info)},
    Symbol{"cuMemAlloc_v2", offsetof(CudaFunctions, mem_alloc)},
    Symbol{"cuMemFree_v2", offsetof(CudaFunctions, mem_free)},
    Symbol{"cuMemcpy", offsetof(CudaFunctions, mem_copy)},
    Symbol{"cuMemcpyAsync", offsetof(CudaFunctions, mem_copy_async)},
    Symbol{"cuMemcpyPeerAsync", offsetof(CudaFunctions, mem_copy_peer_async)},
    Symbol{"cuMemHostAlloc", offsetof(CudaFunctions, mem_host_alloc)},
    Symbol{"cuMemFreeHost", offsetof(CudaFunctions, mem_free_host)},
    Symbol{"cuMemHostRegister_v2", offsetof(CudaFunctions, mem_host_register)},
    Symbol{"cuMemHostUnregister", offsetof(CudaFunctions, mem_host_unregister)},
    Symbol{"cuMemGetAllocationGranularity", offsetof(CudaFunctions, mem_get_allocation_granularity)},
    Symbol{"cuMemAddressReserve", offsetof(CudaFunctions, mem_address_reserve)},
    Symbol{"cuMemAddressFree", offsetof(CudaFunctions, mem_address_free)},
    Symbol{"cuMemCreate", offsetof(CudaFunctions, mem_create)},
    Symbol{"cuMemRelease", offsetof(CudaFunctions, mem_release)},
    Symbol{"cuMemMap", offsetof(CudaFunctions, mem_map)},
    Symbol{"cuMemUnmap", offsetof(CudaFunctions, mem_unmap)},
    Symbol{"cuMemSetAccess", offsetof(CudaFunctions, mem_set_access)},
    Symbol{"cuEventCreate", offsetof(CudaFunctions, event_create)},
    Symbol{"cuEventDestroy_v2", offsetof(CudaFunctions, event_destroy)},
    Symbol{"cuEventRecord", offsetof(CudaFunctions, event_record)},
    Symbol{"cuEventQuery", offsetof(CudaFunctions, event_query)},
    Symbol{"cuEventSynchronize", offsetof(CudaFunctions, event_synchronize)},
    Symbol{"cuStreamGetCtx", offsetof(CudaFunctions, stream_get_ctx)},
    Symbol{"cuStreamIsCapturing", offsetof(CudaFunctions, stream_is_capturing)},
    Symbol{"cuStreamSynchronize", offsetof(CudaFunctions, stream_synchronize)},
    Symbol{"cuStreamWaitEvent", offsetof(CudaFunctions, stream_wait_event)},
    Symbol{"cuThreadExchangeStreamCaptureMode", offsetof(CudaFunctions, thread_exchange_stream_capture_mode)},
};

// These may be missing.
constexpr std::array kNewerSymbols{
    Symbol{"cuCtxGetId", offsetof(CudaFunctions, ctx_get_id)},
    Symbol{"cuStreamGetId", offsetof(CudaFunctions, stream_get_id)},
};

bool find(void* library, const Symbol& symbol, CudaFunctions& functions) {
  void* function = find_cuda_function(library, symbol.name);
  std::memcpy(reinterpret_cast<char*>(&functions) + symbol.offset, &function, sizeof(function));
  return function != nullptr;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

CudaDriver::CudaDriver(const std::string& library_path) {
  load(library_path);
  if (unavailable_reason_.empty() && start()) {
    // Registered behind the driver's own, so that it runs before the driver leaves.
    static const int registered = std::atexit([] { process_ends.store(true); });
    static_cast<void>(registered);
  }
}

CudaDriver& CudaDriver::instance() {
  static auto* driver = new CudaDriver;
  return *driver;
}

void CudaDriver::load(const std::string& library_path) {
  void* library = open_cuda_library(library_path, unavailable_reason_);
  if (library == nullptr) {
    return;
  }
  for (const Symbol& symbol : kSymbols) {
    if (!find(library, symbol, functions_)) {
      unavailable_reason_ = "the NVIDIA driver is too old: its library has no " + std::string(symbol.name) +
                            "; install one for CUDA " + version_text(kOldestVersion) + " or newer";
      return;
    }
  }
  for (const Symbol& symbol : kNewerSymbols) {
    static_cast<void>(find(library, symbol, functions_));
  }
}

bool CudaDriver::start() {
  if (functions_.driver_get_version(&version_) == kCuSuccess && version_ < kOldestVersion) {
    unavailable_reason_ = "the NVIDIA driver is too old: it is for CUDA " + version_text(version_) +
                          "; install one for CUDA " + version_text(kOldestVersion) + " or newer";
    return false;
  }
  const CuResult initialised = functions_.init(0);
  const CuResult counted = initialised == kCuSuccess ? functions_.device_get_count(&device_count_) : kCuSuccess;
  if (initialised == kCuNoDevice || (initialised == kCuSuccess && counted == kCuSuccess && device_count_ == 0)) {
    unavailable_reason_ = "the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES";
  } else if (initialised != kCuSuccess) {
    unavailable_reason_ = describe("cuInit", initialised);
  } else if (counted != kCuSuccess) {
    unavailable_reason_ = describe("cuDeviceGetCount", counted);
  }
  return unavailable_reason_.empty();
}

std::string CudaDriver::unavailable_reason() const {
  const bool once_available = unavailable_reason_.empty();
  return once_available && !is_usable() ? describe("the CUDA driver", kCuDeinitialized) : unavailable_reason_;
}

std::string CudaDriver::device_name(int index) const {
  require_device(index);
  std::array<char, 256> name{};
  CuDevice device = 0;
  CuResult result = functions_.device_get(&device, index);
  if (result == kCuSuccess) {
    result = functions_.device_get_name(name.data(), static_cast<int>(name.size()), device);
  }
  if (result != kCuSuccess) {
    throw DeviceError(describe("cuDeviceGetName", result));
  }
  return name.data();
}

bool CudaDriver::is_usable() const noexcept {
  return !forked_.load(std::memory_order_relaxed) && !process_ends.load(std::memory_order_relaxed);
}

void CudaDriver::require_device(int index) const {
  const std::string what = "Device cuda:" + std::to_string(index) + " is not available: ";
  if (!is_available()) {
    throw DeviceError(what + unavailable_reason());
  }
  if (index < 0 || index >= device_count_) {
    throw DeviceError(what + "the driver sees " + std::to_string(device_count_) + " device" +
                      (device_count_ == 1 ? "" : "s") + ", the last is cuda:" + std::to_string(device_count_ - 1));
  }
}

std::string CudaDriver::describe(std::string_view call, CuResult result) const {
  if (forked_.load()) {
    return std::string(call) +
           " cannot be used in a forked child: start processes that use CUDA by spawn or forkserver";
  }
  if (process_ends.load()) {
    return std::string(call) + " cannot be used any more: the process ends";
  }
  const char* name = nullptr;
  const char* text = nullptr;
  functions_.get_error_name(result, &name);
  functions_.get_error_string(result, &text);
  std::string description = std::string(call) + " failed: " + (name == nullptr ? "error" : name) + " (" +
                            std::to_string(result) + ")" + (text == nullptr ? "" : ", " + std::string(text));
  if (says_context_is_gone(result)) {
    description += "; the device was reset (cudaDeviceReset) while memory of it was in use: build the pool anew";
  }
  return description;
}

}  // namespace tierpool
