#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool::testing {

/// A simulated device with room for other calls in the middle of its own: a hook runs when the device is asked, before
/// it answers. Its commit, when it fails, has already committed the first granule; its memory is not known to be zero
/// when `zeroed` is false.
class HookedDevice final : public Device {
 public:
  explicit HookedDevice(std::uint64_t total_bytes, bool zeroed = true)
      : device_(total_bytes, 64 * kKiB), zeroed_(zeroed) {}

  std::function<void()> on_commit;
  std::function<void()> on_decommit;
  std::function<void()> on_allocate_direct;

  [[nodiscard]] SimulatedDevice& simulated() noexcept { return device_; }

  [[nodiscard]] const std::string& name() const noexcept override { return device_.name(); }
  [[nodiscard]] std::uint64_t total_bytes() const override { return device_.total_bytes(); }
  [[nodiscard]] std::uint64_t free_bytes() const override { return device_.free_bytes(); }
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override { return device_.granularity_bytes(); }
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return device_.max_alignment_bytes(); }
  [[nodiscard]] bool host_accessible() const noexcept override { return false; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return zeroed_; }

  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override { return device_.reserve(bytes); }
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
  void release(const Reservation& reservation) noexcept override { device_.release(reservation); }
  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    run(on_allocate_direct);
    DirectAllocation direct = device_.allocate_direct(bytes, alignment);
    direct.zeroed = direct.zeroed && zeroed_;
    return direct;
  }
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    device_.free_direct(address, bytes, alignment);
  }
  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override {
    device_.copy(destination, source, bytes);
  }

 private:
  static void run(const std::function<void()>& hook) {
    if (hook) {
      hook();
    }
  }

  SimulatedDevice device_;
  const bool zeroed_;
};

}  // namespace tierpool::testing
