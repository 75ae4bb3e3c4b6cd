#pragma once

#include <cstdint>
#include <string>

#include "tierpool/device/simulated_device.hpp"

namespace tierpool::testing {

/// A simulated device whose commit, when it fails, has already committed the first granule, and whose memory is not
/// known to be zero when `zeroed` is false.
class PartialDevice final : public Device {
 public:
  explicit PartialDevice(std::uint64_t total_bytes, bool zeroed = true) : device_(total_bytes), zeroed_(zeroed) {}

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
    if (device_.commit(address, bytes)) {
      return true;
    }
    static_cast<void>(device_.commit(address, granularity_bytes()));
    return false;
  }
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.decommit(address, bytes);
  }
  void release(const Reservation& reservation) noexcept override { device_.release(reservation); }
  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override {
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
  SimulatedDevice device_;
  const bool zeroed_;
};

}  // namespace tierpool::testing
