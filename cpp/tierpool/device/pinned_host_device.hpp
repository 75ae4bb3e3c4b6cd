#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/cuda_context.hpp"
#include "tierpool/device/cuda_streams.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/device/device_fault.hpp"
#include "tierpool/device/granule_chunks.hpp"
#include "tierpool/device/host_device.hpp"

namespace tierpool {

struct PinnedHostDeviceOptions {
  /// Not cached by the processor: faster for the device to read, very slow for the processor to read.
  bool write_combined = false;
};

/// Host memory that CUDA devices reach by themselves, "pinned": copies run at the speed of the link and beside other
/// work. Every CUDA device can use it; its streams are those of the device it was made for. Thread-safe.
///
/// Pages are taken as the host device takes them, huge and by many threads, and then registered with the driver: the
/// driver's own allocation does neither. The first commit takes and registers the whole of a reservation, and the last
/// decommit gives it back, because the driver refuses a copy that crosses from one registration into the next.
/// Write-combined memory only the driver can make: a reservation takes all of it at once and gives nothing back before
/// its end. Memory given back must not be in use by any stream.
class PinnedHostDevice final : public Device {
 public:
  using Options = PinnedHostDeviceOptions;

  /// The driver outlives this object. Throws DeviceError when it is not available or has no such device.
  explicit PinnedHostDevice(int index = 0, const PinnedHostDeviceOptions& options = {},
                            CudaDriver& driver = CudaDriver::instance());
  ~PinnedHostDevice() override = default;

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t total_bytes() const override { return host_.total_bytes(); }
  [[nodiscard]] std::uint64_t free_bytes() const override { return host_.free_bytes(); }
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override;
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return granularity_bytes(); }
  [[nodiscard]] bool host_accessible() const noexcept override { return true; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return false; }

  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override;
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] CommitScope commit_scope() const noexcept override {
    return write_combined_ ? CommitScope::always : CommitScope::reservation;
  }
  [[nodiscard]] AddressRange decommittable(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  void release(const Reservation& reservation) noexcept override;

  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override;
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override;

  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override;
  [[nodiscard]] std::string fault() const override { return fault_.text(); }
  [[nodiscard]] bool survives_fork() const noexcept override { return false; }  // the driver does not
  [[nodiscard]] DeviceStreams* streams() noexcept override { return &streams_; }

 private:
  struct Range {
    Range(std::uint64_t range_address, std::uint64_t granules) : address(range_address), chunks(granules) {}

    const std::uint64_t address;
    std::mutex mutex;
    GranuleChunks chunks;  // at most one, of all granules
  };

  [[nodiscard]] const CudaFunctions& call() const noexcept { return context_.functions(); }
  /// False, with the reason kept unless it is a shortage.
  bool fail(std::string_view what, CuResult result) noexcept;
  [[nodiscard]] Reservation take(std::uint64_t bytes);
  void give_back(const Reservation& reservation) noexcept;
  [[nodiscard]] Range* find(std::uint64_t address, std::uint64_t bytes) noexcept;
  /// Whether a direct allocation is a mapping of our own rather than memory of the driver.
  [[nodiscard]] bool is_mapped(std::uint64_t bytes, std::uint64_t alignment) const noexcept;
  [[nodiscard]] std::uint64_t map_direct(std::uint64_t bytes) noexcept;
  // These expect the range to be locked, and the context to be current.
  [[nodiscard]] bool pin(Range& range) noexcept;
  [[nodiscard]] bool unpin_unused(Range& range) noexcept;

  mutable CudaContext context_;
  CudaStreams streams_{context_};
  HostDevice host_;
  const bool write_combined_;
  const std::string name_;
  DeviceFault fault_;
  std::mutex mutex_;  // of the table below
  std::map<std::uint64_t, std::unique_ptr<Range>> ranges_;
};

}  // namespace tierpool
