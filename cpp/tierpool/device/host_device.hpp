#pragma once

#include <cstdint>
#include <string>

#include "tierpool/device/device.hpp"

namespace tierpool {

/// What stands behind a host reservation.
enum class HostBacking {
  anonymous,     ///< private to this process, in huge pages where possible
  shared_memory  ///< a file without a name, in small pages, so that they can be mapped a second time one by one
};

/// Ordinary memory of this machine. Without state that changes, hence safe from any thread and after fork.
///
/// An anonymous reservation is a private mapping, with huge pages where the system allows them by request; commit
/// populates it, from several threads when that pays off; decommit drops the pages. Direct allocations of 128 KiB and
/// more are mappings of their own, populated as they are touched. Memory totals follow the control group's limits. A
/// reservation of shared memory carries its descriptor; a forked child sees the same pages, not a copy.
class HostDevice final : public Device {
 public:
  explicit HostDevice(HostBacking backing = HostBacking::anonymous) noexcept : backing_(backing) {}

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t total_bytes() const override;
  [[nodiscard]] std::uint64_t free_bytes() const override;
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override;
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override;
  [[nodiscard]] bool host_accessible() const noexcept override { return true; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return true; }

  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override;
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  void release(const Reservation& reservation) noexcept override;

  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override;
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override;

  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override;

 private:
  const std::string name_ = "host";
  const HostBacking backing_;
};

}  // namespace tierpool
