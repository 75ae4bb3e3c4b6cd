#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/cuda_functions.hpp"
#include "tierpool/device/cuda_library.hpp"

namespace tierpool {

/// The CUDA driver, opened when the first object of this class is made and never before. That it cannot be used is a
/// value with its reason, no error. Thread-safe.
class CudaDriver {
 public:
  /// Opens and initialises the driver. Tests give the path of a library of their own.
  explicit CudaDriver(const std::string& library_path = default_cuda_library());

  /// The process's own, made on first use; lives until the process ends.
  [[nodiscard]] static CudaDriver& instance();

  /// Whether there is a driver with a device, and is_usable().
  [[nodiscard]] bool is_available() const noexcept { return unavailable_reason_.empty() && is_usable(); }
  /// Why not; empty when it is available.
  [[nodiscard]] std::string unavailable_reason() const;
  [[nodiscard]] int device_count() const noexcept { return device_count_; }
  /// 1000 x major + 10 x minor of the CUDA version the driver knows; 0 without a driver.
  [[nodiscard]] int version() const noexcept { return version_; }
  /// What its maker calls it, "NVIDIA H200". Throws DeviceError for an index it does not have.
  [[nodiscard]] std::string device_name(int index) const;

  /// Only where is_available().
  [[nodiscard]] const CudaFunctions& functions() const noexcept { return functions_; }
  /// False in a forked child, whose copy of the driver's state means nothing, and while the process ends, when the
  /// driver may already be gone: then nothing of it is called any more, and what it holds is left to it.
  [[nodiscard]] bool is_usable() const noexcept;

  /// Throws DeviceError with the reason unless the driver is available and has that device.
  void require_device(int index) const;
  /// "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY, out of memory", with the remedy where there is one.
  [[nodiscard]] std::string describe(std::string_view call, CuResult result) const;

 private:
  void load(const std::string& library_path);
  [[nodiscard]] bool start();

  CudaFunctions functions_{};
  std::string unavailable_reason_;
  int version_ = 0;
  int device_count_ = 0;
  std::atomic<bool> forked_{false};
  ForkHandler fork_handler_{ForkHandler::Rank::device, [] {}, [] {},
                            [this] { forked_.store(unavailable_reason_.empty()); }};
};

}  // namespace tierpool
