#include "tierpool/device/cuda_context.hpp"

#include <exception>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool {

CudaContext::CudaContext(CudaDriver& driver, int index) : driver_(driver), index_(index) {
  driver.require_device(index);
  if (const CuResult result = functions().device_get(&device_, index); result != kCuSuccess) {
    raise("Cannot use it", "cuDeviceGet", result);
  }
}

CudaContext::~CudaContext() {
  if (retained_ && driver_.is_usable() && !says_context_is_gone(compare_id())) {  // its successor is others'
    static_cast<void>(functions().primary_ctx_release(device_));
  }
}

CudaContext::Scope::Scope(CudaContext& context) noexcept : call_(context.functions()) {
  if (!context.driver_.is_usable()) {
    return;
  }
  CuContext wanted = context.get();
  if (wanted == nullptr) {
    result_ = context.retain();
    if (result_ != kCuSuccess) {
      return;
    }
    wanted = context.get();
  }
  CuContext current = nullptr;
  result_ = call_.ctx_get_current(&current);
  if (result_ == kCuSuccess && current != wanted) {
    result_ = call_.ctx_push_current(wanted);
    pushed_ = result_ == kCuSuccess;
  }
  if (result_ == kCuSuccess) {
    result_ = context.compare_id();
  }
  if (result_ == kCuSuccess) {
    static_cast<void>(call_.thread_exchange_stream_capture_mode(&capture_mode_));
  }
}

CudaContext::Scope::~Scope() {
  if (result_ == kCuSuccess) {
    static_cast<void>(call_.thread_exchange_stream_capture_mode(&capture_mode_));
  }
  if (pushed_) {
    CuContext popped = nullptr;
    static_cast<void>(call_.ctx_pop_current(&popped));
  }
}

CuResult CudaContext::retain() noexcept {
  const std::lock_guard lock(mutex_);
  if (get() != nullptr) {
    return kCuSuccess;
  }
  const CudaFunctions& call = functions();
  CuContext current = nullptr;
  CuDevice current_device = -1;
  if (call.ctx_get_current(&current) != kCuSuccess || current == nullptr ||
      call.ctx_get_device(&current_device) != kCuSuccess || current_device != device_) {
    current = nullptr;
  }
  unsigned flags = 0;
  int active = 0;
  const CuResult asked = call.primary_ctx_get_state(device_, &flags, &active);
  if (current != nullptr && asked == kCuSuccess && active == 0) {
    id_ = id_of(current);
    context_.store(current, std::memory_order_release);  // the caller's own: it lives as long as the caller says
    return kCuSuccess;
  }
  CuContext primary = nullptr;
  if (const CuResult result = call.primary_ctx_retain(&primary, device_); result != kCuSuccess) {
    return result;
  }
  retained_ = current == nullptr || current == primary;
  if (!retained_) {
    static_cast<void>(call.primary_ctx_release(device_));
  }
  CuContext chosen = retained_ ? primary : current;
  id_ = id_of(chosen);
  context_.store(chosen, std::memory_order_release);
  return kCuSuccess;
}

CuResult CudaContext::compare_id() const noexcept {
  unsigned long long id = 0;
  const CuResult result = id_ == 0 ? kCuSuccess : functions().ctx_get_id(get(), &id);
  return result == kCuSuccess && id != id_ ? kCuContextIsDestroyed : result;
}

std::uint64_t CudaContext::id_of(CuContext context) const noexcept {
  unsigned long long id = 0;
  const bool told = functions().ctx_get_id != nullptr && functions().ctx_get_id(context, &id) == kCuSuccess;
  return told ? id : 0;
}

std::string CudaContext::explain(const std::string& what, std::string_view call, CuResult result) const {
  return what + " on cuda:" + std::to_string(index_) + ": " + driver_.describe(call, result);
}

void CudaContext::raise(const std::string& what, std::string_view call, CuResult result) const {
  throw DeviceError(explain(what, call, result));
}

void CudaContext::log_failure(const std::string& what, std::string_view call, CuResult result) const noexcept {
  if (!driver_.is_usable()) {
    return;
  }
  try {
    log(LogLevel::error, explain(what, call, result));
  } catch (const std::exception&) {
    log(LogLevel::error, "A CUDA call failed, and there is no memory to say which");
  }
}

}  // namespace tierpool
