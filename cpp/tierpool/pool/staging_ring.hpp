#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// Pinned slots through which pageable memory reaches a device and back, in the order of a stream. A slot is used again
/// when the copy that read it last is done. Thread-safe.
///
/// Neither copy can be part of a graph: the processor takes part in it. Both throw DeviceError then.
class StagingRing {
 public:
  static constexpr std::uint64_t kSlotBytes = 4 * kMiB;
  static constexpr std::size_t kSlotCount = 8;
  static constexpr std::uint64_t kBytes = kSlotBytes * kSlotCount;

  /// Takes its slots from `pinned`. Throws OutOfMemoryError.
  explicit StagingRing(std::shared_ptr<MemoryPool> pinned);

  /// Enqueues a copy into device memory. On return the source has been read.
  void copy_in(DeviceStreams& streams, std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
               StreamHandle stream);
  /// Copies out of device memory. On return the destination has been written.
  void copy_out(DeviceStreams& streams, std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                StreamHandle stream);

 private:
  struct Slot {
    Buffer memory;
    EventHandle event = kNoEvent;  ///< of the last copy; made on first use and kept
    bool busy = false;             ///< some thread has it
  };
  class Taken;

  [[nodiscard]] Slot* take_if_free() noexcept;
  [[nodiscard]] Slot* take();
  void give_back(Slot& slot) noexcept;

  const std::shared_ptr<MemoryPool> pinned_;
  std::mutex mutex_;
  std::condition_variable given_back_;
  std::array<Slot, kSlotCount> slots_;
  std::size_t next_ = 0;
};

/// Where a device's staging comes from.
using FindStaging = StagingRing& (*)(Device& device);

/// The process's ring for a device; made on first use and kept to the end, because a driver may be gone before.
/// Throws ConfigError, InitializationError, OutOfMemoryError where there is no pinned memory.
[[nodiscard]] StagingRing& staging_ring_of(Device& device);

}  // namespace tierpool
