#pragma once

#include <cstdint>
#include <functional>

#include "support/forwarding_device.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool::testing {

/// A simulated device with room for other calls in the middle of its own: a hook runs when the device is asked, before
/// it answers. Its commit, when it fails, has already committed the first granule; its memory is not known to be zero
/// when `zeroed` is false.
class HookedDevice final : public ForwardingDevice<SimulatedDevice> {
 public:
  explicit HookedDevice(std::uint64_t total_bytes, bool zeroed = true)
      : ForwardingDevice(total_bytes, 64 * kKiB), zeroed_(zeroed) {}

  std::function<void()> on_commit;
  std::function<void()> on_decommit;
  std::function<void()> on_allocate_direct;

  [[nodiscard]] SimulatedDevice& simulated() noexcept { return device_; }

  [[nodiscard]] bool commits_zeroed() const noexcept override { return zeroed_; }
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    run(on_commit);
    if (device_.commit(address, bytes)) {
      return true;
    }
    static_cast<void>(device_.commit(address, granularity_bytes()));
    return false;
  }
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    run(on_decommit);
    return device_.decommit(address, bytes);
  }
  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    run(on_allocate_direct);
    DirectAllocation direct = device_.allocate_direct(bytes, alignment);
    direct.zeroed = direct.zeroed && zeroed_;
    return direct;
  }

 private:
  static void run(const std::function<void()>& hook) {
    if (hook) {
      hook();
    }
  }

  const bool zeroed_;
};

}  // namespace tierpool::testing
