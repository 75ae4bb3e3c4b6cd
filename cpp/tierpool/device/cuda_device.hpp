#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/cuda_context.hpp"
#include "tierpool/device/cuda_streams.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/device/device_fault.hpp"
#include "tierpool/device/granule_chunks.hpp"

namespace tierpool {

/// How a CUDA device takes memory from its driver.
struct CudaDeviceOptions {
  /// Most bytes taken in one piece, which also goes back in one: large pieces cost less, small ones trim closer. A
  /// piece is never more than a 64th of what is committed at once, or one granule.
  std::uint64_t chunk_bytes = 32 * kMiB;
  /// Whether addresses and memory are taken apart, where the device can.
  bool virtual_memory = true;
};

/// The memory of one CUDA device, "cuda:0". Thread-safe.
///
/// A reservation takes addresses alone; commit maps memory behind them and decommit unmaps it, in granules of 2 MiB, so
/// that a heap grows and shrinks where it is. Memory comes in pieces that go back whole: decommittable() says which lie
/// in a range, and what is decommitted of another stays until the rest of it is. A device without virtual memory
/// management takes the whole of a reservation at once, and refuses to decommit. Nothing waits for streams: memory
/// given back must not be in use. This device and its peers reach the memory, and the processor's copies.
class CudaDevice final : public Device {
 public:
  using Options = CudaDeviceOptions;

  /// The driver outlives this object. Throws DeviceError when it is not available or has no such device; ConfigError
  /// for a chunk that is no multiple of a granule.
  explicit CudaDevice(int index = 0, const CudaDeviceOptions& options = {},
                      CudaDriver& driver = CudaDriver::instance());
  ~CudaDevice() override = default;

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t total_bytes() const override { return total_bytes_; }
  /// Throws DeviceError when the driver does not answer.
  [[nodiscard]] std::uint64_t free_bytes() const override;
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override { return granularity_bytes_; }
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return granularity_bytes_; }
  [[nodiscard]] bool host_accessible() const noexcept override { return false; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return false; }
  /// Whether heaps grow and shrink in place.
  [[nodiscard]] bool has_virtual_memory() const noexcept { return virtual_memory_; }

  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override;
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] CommitScope commit_scope() const noexcept override {
    return virtual_memory_ ? CommitScope::granules : CommitScope::always;
  }
  [[nodiscard]] AddressRange decommittable(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  void release(const Reservation& reservation) noexcept override;

  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override;
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override;

  /// Returns when the bytes have arrived.
  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override;
  [[nodiscard]] std::string fault() const override { return fault_.text(); }
  [[nodiscard]] bool survives_fork() const noexcept override { return false; }  // the driver does not
  [[nodiscard]] DeviceStreams* streams() noexcept override { return &streams_; }

 private:
  /// One reservation; its lock serialises the driver calls on it, as the driver itself does.
  struct Range {
    Range(std::uint64_t range_address, std::uint64_t granules) : address(range_address), chunks(granules) {}

    const std::uint64_t address;
    std::mutex mutex;
    GranuleChunks chunks;
  };

  [[nodiscard]] const CudaFunctions& call() const noexcept { return context_.functions(); }
  /// False, with the reason kept unless it is a shortage.
  bool fail(std::string_view what, CuResult result) noexcept;
  [[nodiscard]] CuResult take_addresses(std::uint64_t bytes, std::uint64_t& address) noexcept;
  /// Plain memory at a multiple of `alignment`.
  [[nodiscard]] CuResult allocate(std::uint64_t bytes, std::uint64_t alignment, std::uint64_t& address) noexcept;
  [[nodiscard]] CuResult deallocate(std::uint64_t address) noexcept;
  [[nodiscard]] Range* find(std::uint64_t address, std::uint64_t bytes) noexcept;
  // These expect the range to be locked, and the context to be current.
  [[nodiscard]] std::uint64_t chunk_granules(const GranuleChunks::Run& run) const noexcept;
  [[nodiscard]] bool map(Range& range, const GranuleChunks::Run& run) noexcept;
  [[nodiscard]] CuResult map_chunk(std::uint64_t address, std::uint64_t bytes) noexcept;
  bool unmap_unused(Range& range, std::uint64_t begin, std::uint64_t end) noexcept;

  mutable CudaContext context_;
  CudaStreams streams_{context_};
  const std::string name_;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t granularity_bytes_ = 2 * kMiB;
  std::uint64_t most_chunk_granules_ = 1;
  std::vector<CuMemoryAccess> accesses_;  // of all its memory
  bool virtual_memory_ = false;
  DeviceFault fault_;
  std::mutex mutex_;  // of the tables below
  std::map<std::uint64_t, std::unique_ptr<Range>> ranges_;
  std::map<std::uint64_t, std::uint64_t> bases_;  // of plain memory whose address is not the driver's
};

}  // namespace tierpool
