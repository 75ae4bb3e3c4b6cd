#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// Pinned slots through which pageable memory reaches a device and back, in the order of a stream. A slot is used again
/// when the copy that read it last is done. Large copies are made by several threads. Thread-safe, but for its end.
///
/// Neither copy can be part of a graph: the processor takes part in it. Both throw DeviceError then.
class StagingRing {
 public:
  static constexpr std::uint64_t kSlotBytes = 4 * kMiB;
  static constexpr std::size_t kSlotCount = 24;
  static constexpr std::uint64_t kBytes = kSlotBytes * kSlotCount;
  static constexpr std::uint64_t kMaxThreads = 12;  ///< enough for the link, and half of the slots

  /// Takes its slots from `pinned`, whose device's streams make the copies. Throws OutOfMemoryError.
  explicit StagingRing(std::shared_ptr<MemoryPool> pinned);
  /// Waits for copies that are under way.
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  /// Puts `length` bytes of a source, from `offset`, into a slot. Called by several threads at once.
  using FillPiece = std::function<void(std::uint64_t offset, std::uint64_t length, void* slot)>;
  /// Enqueues a copy into device memory. On return the source has been read. Throws what `fill` throws.
  void copy_in(std::uint64_t destination, const FillPiece& fill, std::uint64_t bytes, StreamHandle stream);
  /// Copies out of device memory. On return the destination has been written.
  void copy_out(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes, StreamHandle stream);

  /// False once the device's context is gone: another ring is needed.
  [[nodiscard]] bool works() noexcept;

 private:
  struct Slot {
    Buffer memory;
    EventHandle event = kNoEvent;  ///< of the last copy; made on first use and kept
    bool busy = false;             ///< some thread has it
  };
  class Taken;

  [[nodiscard]] Slot& take();
  void give_back(Slot& slot) noexcept;
  void refuse_capture(StreamHandle stream, std::uint64_t bytes);
  template <typename Move>
  void move_pieces(std::uint64_t bytes, StreamHandle stream, const Move& move);

  const std::shared_ptr<MemoryPool> pinned_;
  DeviceStreams& streams_;
  std::mutex mutex_;
  std::condition_variable given_back_;
  std::array<Slot, kSlotCount> slots_;
  std::size_t next_ = 0;
};

/// Where a device's staging comes from.
using FindStaging = std::shared_ptr<StagingRing> (*)(Device& device);

/// The process's ring for a device; made on first use and kept to the end, because a driver may be gone before, or
/// until the context is gone.
/// Throws ConfigError, InitializationError, OutOfMemoryError where there is no pinned memory.
[[nodiscard]] std::shared_ptr<StagingRing> staging_ring_of(Device& device);

}  // namespace tierpool
