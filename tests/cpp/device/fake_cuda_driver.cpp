#include "device/fake_cuda_driver.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

// The driver's own names, hence none of ours.

namespace tierpool::testing {
namespace {

constexpr std::size_t kGranule = std::size_t{2} << 20;
constexpr std::size_t kPage = 4096;
constexpr CuResult kInvalidValue = 1;
constexpr CuResult kInvalidDevice = 101;
constexpr CuResult kInvalidHandle = 400;
constexpr CuResult kAlreadyRegistered = 712;
constexpr CuResult kNotRegistered = 713;

struct FailureOrder {
  CuResult result = kCuSuccess;
  std::uint64_t after = 0;
  std::uint64_t times = 0;
};
struct Context {
  int device = 0;
  bool destroyed = false;
};
struct Handle {
  std::size_t bytes = 0;
  int device = 0;
  int references = 1;  // its own and one for each mapping
};
struct Mapping {
  std::size_t bytes = 0;
  CuMemoryHandle handle = 0;
};
struct Block {
  std::size_t bytes = 0;
  int device = 0;
};
struct Stream {
  Context* context = nullptr;
  unsigned long long id = 0;
  bool destroyed = false;
  bool capturing = false;
};
struct Event {
  bool pending = false;
};

struct State {
  std::mutex mutex;
  int device_count = 2;
  int version = 12040;
  bool hold_events = false;
  std::map<std::string, FailureOrder> failures;
  std::map<std::string, std::uint64_t> calls;
  std::array<Context, 2> primary{{{0, false}, {1, false}}};
  std::array<int, 2> retained{};
  std::array<std::size_t, 2> used{};
  std::map<CuAddress, std::size_t> reserved;
  std::map<CuMemoryHandle, Handle> handles;
  CuMemoryHandle next_handle = 1;
  std::map<CuAddress, Mapping> mappings;
  std::map<CuAddress, Block> blocks;
  std::map<void*, std::size_t> host_blocks;
  std::map<char*, std::size_t> registered;
  std::set<Event*> events;
  std::vector<Stream*> streams;  // kept when destroyed, as handles outlive streams
  unsigned long long next_stream_id = 8;
  std::uint64_t misuse_count = 0;
};

// Leaked: the library is never closed, and threads may end late.
State& state() {
  static auto* instance = new State;
  return *instance;
}

thread_local std::vector<Context*> context_stack;
thread_local int capture_mode = 0;

CuResult misuse(CuResult result) {
  ++state().misuse_count;
  return result;
}

/// What an order to fail says to a call, which is counted.
CuResult begin(const char* name) {
  ++state().calls[name];
  FailureOrder& order = state().failures[name];
  if (order.after > 0) {
    --order.after;
    return kCuSuccess;
  }
  if (order.times == 0) {
    return kCuSuccess;
  }
  --order.times;
  return order.result;
}

/// The same for a call that needs a context.
CuResult begin_in_context(const char* name) {
  if (const CuResult ordered = begin(name); ordered != kCuSuccess) {
    return ordered;
  }
  if (context_stack.empty()) {
    return misuse(kCuInvalidContext);
  }
  return context_stack.back()->destroyed ? kCuContextIsDestroyed : kCuSuccess;
}

int current_device() { return context_stack.back()->device; }

bool take(int device, std::size_t bytes) {
  std::size_t& used = state().used[static_cast<std::size_t>(device)];
  if (bytes > kFakeCudaBytes - used) {
    return false;
  }
  used += bytes;
  return true;
}

void release(CuMemoryHandle handle) {
  const auto found = state().handles.find(handle);
  if (--found->second.references == 0) {
    state().used[static_cast<std::size_t>(found->second.device)] -= found->second.bytes;
    state().handles.erase(found);
  }
}

void* at(CuAddress address) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)); }
CuAddress address_of(void* pointer) { return static_cast<CuAddress>(reinterpret_cast<std::uintptr_t>(pointer)); }

/// Addresses without memory; 0 when there are none.
CuAddress map_addresses(std::size_t bytes, std::size_t alignment, int protection) {
  if (bytes > (std::size_t{1} << 46)) {
    return 0;
  }
  void* mapping = mmap(nullptr, bytes + alignment, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return 0;
  }
  const CuAddress first = address_of(mapping);
  const CuAddress address = (first + alignment - 1) / alignment * alignment;
  if (address > first) {
    munmap(mapping, address - first);
  }
  munmap(at(address + bytes), first + alignment - address);
  return address;
}

bool is_reserved(CuAddress address, std::size_t bytes) {
  const auto after = state().reserved.upper_bound(address);
  return after != state().reserved.begin() && address + bytes <= std::prev(after)->first + std::prev(after)->second;
}

/// Whether the range is a row of whole mappings.
bool is_whole_mappings(CuAddress address, std::size_t bytes) {
  const CuAddress end = address + bytes;
  while (address < end) {
    const auto found = state().mappings.find(address);
    if (found == state().mappings.end()) {
      return false;
    }
    address += found->second.bytes;
  }
  return address == end;
}

Stream* find_stream(CuStream stream) {
  const auto found = std::find(state().streams.begin(), state().streams.end(), static_cast<Stream*>(stream));
  return found == state().streams.end() || (*found)->destroyed ? nullptr : *found;
}

bool is_special(CuStream stream) { return address_of(stream) <= 2; }

/// A stream that exists and is one of the current context.
CuResult check_stream(CuStream stream) {
  if (is_special(stream)) {
    return kCuSuccess;
  }
  const Stream* found = find_stream(stream);
  return found != nullptr && found->context == context_stack.back() ? kCuSuccess : kInvalidHandle;
}

void complete_events() {
  for (Event* event : state().events) {
    event->pending = false;
  }
}

}  // namespace

extern "C" {

void fake_cuda_restart() {
  const std::lock_guard lock(state().mutex);
  State& now = state();
  now.device_count = 2;
  now.version = 12040;
  now.hold_events = false;
  now.failures.clear();
  now.calls.clear();
  now.primary = {{{0, false}, {1, false}}};
  now.retained = {};
  now.misuse_count = 0;
}
void fake_cuda_set_device_count(int count) { state().device_count = count; }
void fake_cuda_set_version(int version) { state().version = version; }
void fake_cuda_fail(const char* name, CuResult result, std::uint64_t after, std::uint64_t times) {
  const std::lock_guard lock(state().mutex);
  state().failures[name] = {result, after, times};
}
void fake_cuda_reset_device(int device) {
  const std::lock_guard lock(state().mutex);
  State& now = state();
  now.primary[static_cast<std::size_t>(device)].destroyed = true;
  now.used[static_cast<std::size_t>(device)] = 0;
  for (const auto& [address, bytes] : now.reserved) {
    munmap(at(address), bytes);
  }
  for (const auto& [address, block] : now.blocks) {
    munmap(at(address - 512), block.bytes + kPage);
  }
  now.reserved.clear();
  now.mappings.clear();
  now.handles.clear();
  now.blocks.clear();
}
void fake_cuda_hold_events(bool hold) {
  const std::lock_guard lock(state().mutex);
  state().hold_events = hold;
}
CuContext fake_cuda_create_context(int device) { return new Context{device, false}; }
std::uint64_t fake_cuda_create_stream(int device) {
  const std::lock_guard lock(state().mutex);
  Context* context = &state().primary[static_cast<std::size_t>(device)];
  state().streams.push_back(new Stream{context, state().next_stream_id++, false, false});
  return address_of(state().streams.back());
}
void fake_cuda_destroy_stream(std::uint64_t stream) {
  const std::lock_guard lock(state().mutex);
  static_cast<Stream*>(at(stream))->destroyed = true;
}
void fake_cuda_set_capturing(std::uint64_t stream, bool capturing) {
  const std::lock_guard lock(state().mutex);
  static_cast<Stream*>(at(stream))->capturing = capturing;
}
std::uint64_t fake_cuda_calls(const char* name) {
  const std::lock_guard lock(state().mutex);
  return state().calls[name];
}
std::uint64_t fake_cuda_used_bytes(int device) {
  const std::lock_guard lock(state().mutex);
  return state().used[static_cast<std::size_t>(device)];
}
std::uint64_t fake_cuda_reserved_bytes() {
  const std::lock_guard lock(state().mutex);
  std::uint64_t bytes = 0;
  for (const auto& [address, size] : state().reserved) {
    bytes += size;
  }
  return bytes;
}
std::uint64_t fake_cuda_pinned_bytes() {
  const std::lock_guard lock(state().mutex);
  std::uint64_t bytes = 0;
  for (const auto& [pointer, size] : state().host_blocks) {
    bytes += size;
  }
  for (const auto& [pointer, size] : state().registered) {
    bytes += size;
  }
  return bytes;
}
std::uint64_t fake_cuda_event_count() {
  const std::lock_guard lock(state().mutex);
  return state().events.size();
}
int fake_cuda_retain_count(int device) {
  const std::lock_guard lock(state().mutex);
  return state().retained[static_cast<std::size_t>(device)];
}
std::uint64_t fake_cuda_misuse_count() {
  const std::lock_guard lock(state().mutex);
  return state().misuse_count;
}

// The driver itself: every function takes the lock, asks for an order to fail, and checks its arguments.
#define FAKE_CUDA_BEGIN(how, name)                                 \
  const std::lock_guard lock(state().mutex);                       \
  if (const CuResult ordered = how(name); ordered != kCuSuccess) { \
    return ordered;                                                \
  }

CuResult cuInit(unsigned) {
  FAKE_CUDA_BEGIN(begin, "cuInit")
  return state().device_count == 0 ? kCuNoDevice : kCuSuccess;
}
CuResult cuDriverGetVersion(int* version) {
  FAKE_CUDA_BEGIN(begin, "cuDriverGetVersion")
  *version = state().version;
  return kCuSuccess;
}
CuResult cuGetErrorName(CuResult error, const char** name) {
  *name = error == kCuOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_FAKE";
  return kCuSuccess;
}
CuResult cuGetErrorString(CuResult, const char** text) {
  *text = "as ordered";
  return kCuSuccess;
}
CuResult cuDeviceGetCount(int* count) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceGetCount")
  *count = state().device_count;
  return kCuSuccess;
}
CuResult cuDeviceGet(CuDevice* device, int ordinal) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceGet")
  *device = ordinal;
  return ordinal >= 0 && ordinal < state().device_count ? kCuSuccess : misuse(kInvalidDevice);
}
CuResult cuDeviceGetName(char* name, int length, CuDevice device) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceGetName")
  const std::string text = "Fake GPU " + std::to_string(device);
  std::strncpy(name, text.c_str(), static_cast<std::size_t>(length) - 1);
  return kCuSuccess;
}
CuResult cuDeviceGetAttribute(int* value, int attribute, CuDevice device) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceGetAttribute")
  *value = attribute == kCuAttributeVirtualMemory && device == 0 ? 1 : 0;
  return kCuSuccess;
}
CuResult cuDeviceTotalMem_v2(std::size_t* bytes, CuDevice) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceTotalMem_v2")
  *bytes = kFakeCudaBytes;
  return kCuSuccess;
}

CuResult cuDevicePrimaryCtxGetState(CuDevice device, unsigned* flags, int* active) {
  FAKE_CUDA_BEGIN(begin, "cuDevicePrimaryCtxGetState")
  *flags = 0;
  *active = state().retained[static_cast<std::size_t>(device)] > 0 ? 1 : 0;
  return kCuSuccess;
}
CuResult cuDevicePrimaryCtxRetain(CuContext* context, CuDevice device) {
  FAKE_CUDA_BEGIN(begin, "cuDevicePrimaryCtxRetain")
  ++state().retained[static_cast<std::size_t>(device)];
  *context = &state().primary[static_cast<std::size_t>(device)];
  return kCuSuccess;
}
CuResult cuDevicePrimaryCtxRelease_v2(CuDevice device) {
  FAKE_CUDA_BEGIN(begin, "cuDevicePrimaryCtxRelease_v2")
  int& retained = state().retained[static_cast<std::size_t>(device)];
  retained -= retained > 0 ? 1 : 0;
  return kCuSuccess;
}
CuResult cuCtxGetCurrent(CuContext* context) {
  *context = context_stack.empty() ? nullptr : context_stack.back();
  return kCuSuccess;
}
CuResult cuCtxPushCurrent_v2(CuContext context) {
  FAKE_CUDA_BEGIN(begin, "cuCtxPushCurrent_v2")
  context_stack.push_back(static_cast<Context*>(context));
  return kCuSuccess;
}
CuResult cuCtxPopCurrent_v2(CuContext* context) {
  const std::lock_guard lock(state().mutex);
  if (context_stack.empty()) {
    return misuse(kCuInvalidContext);
  }
  *context = context_stack.back();
  context_stack.pop_back();
  return kCuSuccess;
}
CuResult cuCtxGetDevice(CuDevice* device) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuCtxGetDevice")
  *device = current_device();
  return kCuSuccess;
}
CuResult cuCtxSynchronize() {
  FAKE_CUDA_BEGIN(begin_in_context, "cuCtxSynchronize")
  complete_events();
  return kCuSuccess;
}

CuResult cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemGetInfo_v2")
  *total_bytes = kFakeCudaBytes;
  *free_bytes = kFakeCudaBytes - state().used[static_cast<std::size_t>(current_device())];
  return kCuSuccess;
}
CuResult cuMemAlloc_v2(CuAddress* address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAlloc_v2")
  if (bytes == 0) {
    return misuse(kInvalidValue);
  }
  if (bytes > kFakeCudaBytes || !take(current_device(), bytes)) {
    return kCuOutOfMemory;
  }
  // 512 bytes behind a page: as aligned as the reference promises, and no more.
  *address = map_addresses(bytes + kPage, kPage, PROT_READ | PROT_WRITE) + 512;
  state().blocks[*address] = {bytes, current_device()};
  return kCuSuccess;
}
CuResult cuMemFree_v2(CuAddress address) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemFree_v2")
  const auto found = state().blocks.find(address);
  if (found == state().blocks.end()) {
    return misuse(kInvalidValue);
  }
  state().used[static_cast<std::size_t>(found->second.device)] -= found->second.bytes;
  munmap(at(address - 512), found->second.bytes + kPage);
  state().blocks.erase(found);
  return kCuSuccess;
}
CuResult cuMemcpy(CuAddress destination, CuAddress source, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemcpy")
  std::memcpy(at(destination), at(source), bytes);
  return kCuSuccess;
}
CuResult cuMemcpyAsync(CuAddress destination, CuAddress source, std::size_t bytes, CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemcpyAsync")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  std::memcpy(at(destination), at(source), bytes);
  return kCuSuccess;
}

CuResult cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostAlloc")
  if (bytes == 0) {
    return misuse(kInvalidValue);
  }
  const CuAddress address = map_addresses(bytes, kPage, PROT_READ | PROT_WRITE);
  if (address == 0 || bytes > (std::size_t{1} << 40)) {
    return kCuOutOfMemory;
  }
  *pointer = at(address);
  state().host_blocks[*pointer] = bytes;
  return kCuSuccess;
}
CuResult cuMemFreeHost(void* pointer) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemFreeHost")
  const auto found = state().host_blocks.find(pointer);
  if (found == state().host_blocks.end()) {
    return misuse(kInvalidValue);
  }
  munmap(pointer, found->second);
  state().host_blocks.erase(found);
  return kCuSuccess;
}
CuResult cuMemHostRegister_v2(void* pointer, std::size_t bytes, unsigned flags) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostRegister_v2")
  auto* begins = static_cast<char*>(pointer);
  const auto after = state().registered.lower_bound(begins + bytes);
  const bool overlaps =
      after != state().registered.begin() && std::prev(after)->first + std::prev(after)->second > begins;
  if (bytes == 0 || (flags & ~3U) != 0 || overlaps) {
    return misuse(overlaps ? kAlreadyRegistered : kInvalidValue);
  }
  state().registered[begins] = bytes;
  return kCuSuccess;
}
CuResult cuMemHostUnregister(void* pointer) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostUnregister")
  return state().registered.erase(static_cast<char*>(pointer)) == 1 ? kCuSuccess : misuse(kNotRegistered);
}

CuResult cuMemGetAllocationGranularity(std::size_t* bytes, const CuMemoryProperties*, int) {
  FAKE_CUDA_BEGIN(begin, "cuMemGetAllocationGranularity")
  *bytes = kGranule;
  return kCuSuccess;
}
CuResult cuMemAddressReserve(CuAddress* address, std::size_t bytes, std::size_t alignment, CuAddress,
                             unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAddressReserve")
  if (bytes == 0 || bytes % kGranule != 0) {
    return misuse(kInvalidValue);
  }
  *address = map_addresses(bytes, std::max(alignment, kGranule), PROT_NONE);
  if (*address == 0) {
    return kCuOutOfMemory;
  }
  state().reserved[*address] = bytes;
  return kCuSuccess;
}
CuResult cuMemAddressFree(CuAddress address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAddressFree")
  const auto found = state().reserved.find(address);
  const auto mapped = state().mappings.lower_bound(address);
  if (found == state().reserved.end() || found->second != bytes ||
      (mapped != state().mappings.end() && mapped->first < address + bytes)) {
    return misuse(kInvalidValue);
  }
  munmap(at(address), bytes);
  state().reserved.erase(found);
  return kCuSuccess;
}
CuResult cuMemCreate(CuMemoryHandle* handle, std::size_t bytes, const CuMemoryProperties* properties,
                     unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemCreate")
  if (bytes == 0 || bytes % kGranule != 0 || properties->type != kCuPinnedAllocation) {
    return misuse(kInvalidValue);
  }
  if (!take(properties->location.id, bytes)) {
    return kCuOutOfMemory;
  }
  *handle = state().next_handle++;
  state().handles[*handle] = {bytes, properties->location.id, 1};
  return kCuSuccess;
}
CuResult cuMemRelease(CuMemoryHandle handle) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemRelease")
  if (state().handles.count(handle) == 0) {
    return misuse(kInvalidValue);
  }
  release(handle);
  return kCuSuccess;
}
CuResult cuMemMap(CuAddress address, std::size_t bytes, std::size_t offset, CuMemoryHandle handle, unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemMap")
  const auto found = state().handles.find(handle);
  const auto after = state().mappings.lower_bound(address + bytes);
  const bool overlaps =
      after != state().mappings.begin() && std::prev(after)->first + std::prev(after)->second.bytes > address;
  if (found == state().handles.end() || found->second.bytes != bytes || offset != 0 || overlaps ||
      !is_reserved(address, bytes)) {
    return misuse(kInvalidValue);
  }
  ++found->second.references;
  state().mappings[address] = {bytes, handle};
  return kCuSuccess;
}
CuResult cuMemUnmap(CuAddress address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemUnmap")
  if (!is_whole_mappings(address, bytes)) {
    return misuse(kInvalidValue);
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  mmap(at(address), bytes, PROT_NONE, flags, -1, 0);
  for (const CuAddress end = address + bytes; address < end;) {
    const auto found = state().mappings.find(address);
    address += found->second.bytes;
    release(found->second.handle);
    state().mappings.erase(found);
  }
  return kCuSuccess;
}
CuResult cuMemSetAccess(CuAddress address, std::size_t bytes, const CuMemoryAccess* access, std::size_t count) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemSetAccess")
  if (count != 1 || access->flags != kCuReadWrite || !is_whole_mappings(address, bytes)) {
    return misuse(kInvalidValue);
  }
  mprotect(at(address), bytes, PROT_READ | PROT_WRITE);
  return kCuSuccess;
}

CuResult cuEventCreate(CuEvent* event, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventCreate")
  auto* created = new Event;
  state().events.insert(created);
  *event = created;
  return kCuSuccess;
}
CuResult cuEventDestroy_v2(CuEvent event) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventDestroy_v2")
  if (state().events.erase(static_cast<Event*>(event)) == 0) {
    return misuse(kInvalidHandle);
  }
  delete static_cast<Event*>(event);
  return kCuSuccess;
}
CuResult cuEventRecord(CuEvent event, CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventRecord")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  static_cast<Event*>(event)->pending = state().hold_events;
  return kCuSuccess;
}
CuResult cuEventQuery(CuEvent event) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventQuery")
  return static_cast<Event*>(event)->pending ? kCuNotReady : kCuSuccess;
}
CuResult cuEventSynchronize(CuEvent event) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventSynchronize")
  static_cast<Event*>(event)->pending = false;
  return kCuSuccess;
}
CuResult cuStreamGetCtx(CuStream stream, CuContext* context) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamGetCtx")
  const Stream* found = find_stream(stream);
  if (found == nullptr) {
    return kInvalidHandle;
  }
  *context = found->context;
  return kCuSuccess;
}
CuResult cuStreamIsCapturing(CuStream stream, int* status) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamIsCapturing")
  const Stream* found = find_stream(stream);
  *status = found != nullptr && found->capturing ? 1 : 0;
  return found == nullptr && !is_special(stream) ? kInvalidHandle : kCuSuccess;
}
CuResult cuStreamSynchronize(CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamSynchronize")
  complete_events();
  return check_stream(stream);
}
CuResult cuStreamWaitEvent(CuStream stream, CuEvent, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamWaitEvent")
  return check_stream(stream);
}
CuResult cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, capture_mode);
  return kCuSuccess;
}
CuResult cuStreamGetId(CuStream stream, unsigned long long* id) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamGetId")
  const Stream* found = find_stream(stream);
  *id = found == nullptr ? 0 : found->id;
  return found == nullptr ? kInvalidHandle : kCuSuccess;
}

}  // extern "C"
}  // namespace tierpool::testing
