#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "tierpool/device/device.hpp"

namespace tierpool::testing {

/// Does what a device of its own does; for tests that change some of it.
template <class Inner>
class ForwardingDevice : public Device {
 public:
  template <class... Arguments>
  explicit ForwardingDevice(Arguments&&... arguments) : device_(std::forward<Arguments>(arguments)...) {}

  [[nodiscard]] const std::string& name() const noexcept override { return device_.name(); }
  [[nodiscard]] std::uint64_t total_bytes() const override { return device_.total_bytes(); }
  [[nodiscard]] std::uint64_t free_bytes() const override { return device_.free_bytes(); }
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override { return device_.granularity_bytes(); }
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return device_.max_alignment_bytes(); }
  [[nodiscard]] bool host_accessible() const noexcept override { return device_.host_accessible(); }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return device_.commits_zeroed(); }
  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override { return device_.reserve(bytes); }
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.commit(address, bytes);
  }
  [[nodiscard]] CommitScope commit_scope() const noexcept override { return device_.commit_scope(); }
  [[nodiscard]] AddressRange decommittable(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.decommittable(address, bytes);
  }
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override {
    return device_.decommit(address, bytes);
  }
  void release(const Reservation& reservation) noexcept override { device_.release(reservation); }
  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    return device_.allocate_direct(bytes, alignment);
  }
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override {
    device_.free_direct(address, bytes, alignment);
  }
  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override {
    device_.copy(destination, source, bytes);
  }
  [[nodiscard]] std::string fault() const override { return device_.fault(); }
  [[nodiscard]] bool survives_fork() const noexcept override { return device_.survives_fork(); }
  [[nodiscard]] DeviceStreams* streams() noexcept override { return device_.streams(); }

 protected:
  Inner device_;
};

}  // namespace tierpool::testing
