#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "tierpool/device/cuda_driver.hpp"

namespace tierpool {

/// The context of one CUDA device that its memory, streams and events belong to: the primary one, which is what every
/// library built on the CUDA runtime uses, or what the first caller has made current for this device.
///
/// It is retained on first use, because that may take hundreds of MiB of the device, and released with this object.
class CudaContext {
 public:
  /// The driver outlives this object. Throws DeviceError when it is not available or has no such device.
  CudaContext(CudaDriver& driver, int index);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  /// Makes the context current for its lifetime and lets the thread make calls that a running capture of other work
  /// would forbid; the caller's context and mode come back at its end.
  class Scope {
   public:
    explicit Scope(CudaContext& context) noexcept;
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    /// kCuSuccess, or why there is no context: nothing may be called then.
    [[nodiscard]] CuResult result() const noexcept { return result_; }
    explicit operator bool() const noexcept { return result_ == kCuSuccess; }

   private:
    const CudaFunctions& call_;
    CuResult result_ = kCuDeinitialized;
    bool pushed_ = false;
    int capture_mode_ = kCuCaptureRelaxed;
  };

  [[nodiscard]] CudaDriver& driver() const noexcept { return driver_; }
  [[nodiscard]] const CudaFunctions& functions() const noexcept { return driver_.functions(); }
  [[nodiscard]] int index() const noexcept { return index_; }
  [[nodiscard]] CuDevice device() const noexcept { return device_; }
  /// Null before the first scope.
  [[nodiscard]] CuContext get() const noexcept { return context_.load(std::memory_order_acquire); }

  /// Throws DeviceError: what could not be done, on which device, and why.
  [[noreturn]] void raise(const std::string& what, std::string_view call, CuResult result) const;
  /// The same as a record of the log, for calls that cannot throw. Not for a driver that is not usable: what it held
  /// went with it.
  void log_failure(const std::string& what, std::string_view call, CuResult result) const noexcept;

 private:
  [[nodiscard]] CuResult retain() noexcept;
  /// 0 where the driver cannot tell.
  [[nodiscard]] std::uint64_t id_of(CuContext context) const noexcept;
  /// kCuContextIsDestroyed for another one than was retained: a primary context that was reset comes back under the
  /// same handle, without anything that was in it.
  [[nodiscard]] CuResult compare_id() const noexcept;
  [[nodiscard]] std::string explain(const std::string& what, std::string_view call, CuResult result) const;

  CudaDriver& driver_;
  const int index_;
  CuDevice device_ = 0;
  std::mutex mutex_;  // for retaining only
  bool retained_ = false;
  std::uint64_t id_ = 0;  // written before the context
  std::atomic<CuContext> context_{nullptr};
};

}  // namespace tierpool
