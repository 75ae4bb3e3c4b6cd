#include <chrono>
#include <condition_variable>

#include "device/fake_cuda_state.hpp"

// How tests steer it, its devices and its contexts. The driver's own names, hence none of ours.

namespace tierpool::testing {

namespace {

/// Where waits for a device stand, without the lock of the state.
class Gate {
 public:
  void hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    opened_.notify_all();
  }
  /// False when it stayed shut.
  [[nodiscard]] bool pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    const bool opened = opened_.wait_for(lock, std::chrono::minutes(1), [this] { return !held_; });
    --waiting_;
    return opened;
  }
  [[nodiscard]] int waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool held_ = false;
  int waiting_ = 0;
};

// Leaked, as the state is.
Gate& gate() {
  static auto* instance = new Gate;
  return *instance;
}

}  // namespace

bool pass_gate() { return gate().pass(); }

extern "C" {

void fake_cuda_hold_waits(bool hold) { gate().hold(hold); }
int fake_cuda_waiting_count() { return gate().waiting(); }

void fake_cuda_restart() {
  const std::lock_guard lock(state().mutex);
  State& now = state();
  now.device_count = 2;
  now.version = 12040;
  now.peers = true;
  now.hold_work = false;
  now.failures.clear();
  now.calls.clear();
  now.primary = {now.add_context(0), now.add_context(1)};
  now.retained = {};
  now.misuse_count = 0;
}
void fake_cuda_set_device_count(int count) { state().device_count = count; }
void fake_cuda_set_peers(bool peers) { state().peers = peers; }
void fake_cuda_set_version(int version) { state().version = version; }
void fake_cuda_fail(const char* name, CuResult result, std::uint64_t after, std::uint64_t times) {
  const std::lock_guard lock(state().mutex);
  state().failures[name] = {result, after, times};
}
void fake_cuda_reset_device(int device) {
  const std::lock_guard lock(state().mutex);
  State& now = state();
  Context* primary = now.primary[static_cast<std::size_t>(device)];
  primary->destroyed = true;
  now.retained[static_cast<std::size_t>(device)] = 0;
  now.used[static_cast<std::size_t>(device)] = 0;
  for (auto found = now.blocks.begin(); found != now.blocks.end();) {
    if (found->second.device == device) {
      munmap(at(found->first - 512), found->second.bytes + kPage);
      found = now.blocks.erase(found);
    } else {
      ++found;
    }
  }
  if (device == 0) {  // all that the other one has none of
    for (const auto& [address, bytes] : now.reserved) {
      munmap(at(address), bytes);
    }
    now.reserved.clear();
    now.mappings.clear();
    now.handles.clear();
    now.registered.clear();
    now.events_gone.merge(now.events);
  }
  for_each_queue([device](const Context* owner, Queue& queue) {
    if (owner->device == device) {
      queue.done += queue.operations.size();
      queue.operations.clear();
    }
  });
}
void fake_cuda_hold_work(bool hold) {
  const std::lock_guard lock(state().mutex);
  state().hold_work = hold;
}
CuContext fake_cuda_create_context(int device) {
  const std::lock_guard lock(state().mutex);
  return state().add_context(device);
}
std::uint64_t fake_cuda_create_stream(int device) {
  const std::lock_guard lock(state().mutex);
  Context* context = state().primary[static_cast<std::size_t>(device)];
  state().streams.push_back(new Stream{context, state().next_stream_id++});
  return address_of(state().streams.back());
}
void fake_cuda_make_blocking(std::uint64_t stream) {
  const std::lock_guard lock(state().mutex);
  static_cast<Stream*>(at(stream))->blocking = true;
}
void fake_cuda_destroy_stream(std::uint64_t stream) {
  const std::lock_guard lock(state().mutex);
  static_cast<Stream*>(at(stream))->destroyed = true;
}
void fake_cuda_set_capturing(std::uint64_t stream, bool capturing) {
  const std::lock_guard lock(state().mutex);
  (stream == 2 ? captures_thread_stream : static_cast<Stream*>(at(stream))->capturing) = capturing;
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
CuResult cuDeviceCanAccessPeer(int* can, CuDevice device, CuDevice peer) {
  FAKE_CUDA_BEGIN(begin, "cuDeviceCanAccessPeer")
  *can = state().peers ? 1 : 0;
  return device == peer ? misuse(kInvalidDevice) : kCuSuccess;
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
  Context* primary = state().primary[static_cast<std::size_t>(device)];
  if (primary->destroyed) {  // it comes back as another one, under the same handle
    primary->destroyed = false;
    primary->id = state().next_context_id++;
  }
  *context = primary;
  return kCuSuccess;
}
CuResult cuCtxGetId(CuContext context, unsigned long long* id) {
  FAKE_CUDA_BEGIN(begin, "cuCtxGetId")
  *id = static_cast<Context*>(context)->id;
  return static_cast<Context*>(context)->destroyed ? kCuContextIsDestroyed : kCuSuccess;
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
  const bool opened = pass_gate();
  FAKE_CUDA_BEGIN(begin_in_context, "cuCtxSynchronize")
  if (is_any_capturing(false)) {
    return misuse(kCaptureUnsupported);  // and every capture is invalid
  }
  complete_all(context_stack.back());
  return opened ? kCuSuccess : misuse(kCuNotReady);
}

}  // extern "C"
}  // namespace tierpool::testing
