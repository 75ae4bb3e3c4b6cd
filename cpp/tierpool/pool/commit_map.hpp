#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "tierpool/device/device.hpp"
#include "tierpool/pool/byte_limit.hpp"
#include "tierpool/pool/device_memory.hpp"

namespace tierpool {

/// Which granules of a reservation have physical memory behind them, and the only caller of commit and decommit.
///
/// commit() and decommit_inside() block on the device and need the map locked by the caller; that lock serialises
/// exactly these device calls and is never taken on the hot path. The other calls may run beside them.
class CommitMap {
 public:
  /// The first `capacity_bytes` of the reservation are in use; all outlive this object. `limit` and `memory`, if
  /// any, count whole granules: what the limit does not allow is not committed.
  CommitMap(Device& device, const Reservation& reservation, std::uint64_t capacity_bytes, ByteLimit* limit = nullptr,
            DeviceMemory* memory = nullptr);

  /// Whether the whole range is committed. No lock.
  [[nodiscard]] bool covers(std::uint64_t offset_bytes, std::uint64_t bytes) const noexcept;
  /// Commits what is missing of the range, or all where the device takes all, and returns how many bytes that was;
  /// `complete` is false when the device ran out of memory on the way, or the limit was reached. What a failing device
  /// call may have left behind is given back.
  std::uint64_t commit(std::uint64_t offset_bytes, std::uint64_t bytes, bool& complete) noexcept;
  /// Decommits the granules that lie wholly inside the range, which no one else may use meanwhile; a granule cut off by
  /// the end of the capacity counts as whole. One that came in a piece with others goes with them, and stays committed
  /// as long as one of them is outside. Returns the bytes given back; `refused` tells that the device kept more.
  std::uint64_t decommit_inside(std::uint64_t offset_bytes, std::uint64_t bytes, bool& refused) noexcept;

  /// To be called when the reservation has ended: nothing is committed any more.
  void forget() noexcept;

  /// Bytes of the capacity with physical memory behind them.
  [[nodiscard]] std::uint64_t committed_bytes() const noexcept;
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept { return granularity_bytes_; }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  [[nodiscard]] bool is_committed(std::uint64_t granule) const noexcept;
  void set(std::uint64_t first_granule, std::uint64_t count, bool committed) noexcept;
  /// Those of the committed granules whose memory goes.
  void decommit_granules(std::uint64_t first_granule, std::uint64_t count, bool& refused) noexcept;
  void note_decommitted(std::uint64_t bytes) noexcept;
  /// Within the limit and on the device, or not at all.
  [[nodiscard]] bool commit_granules(std::uint64_t first_granule, std::uint64_t count) noexcept;
  /// The end of the run of granules from `granule` on, below `end`, whose state is `committed`.
  [[nodiscard]] std::uint64_t run_end(std::uint64_t granule, std::uint64_t end, bool committed) const noexcept;

  Device& device_;
  const std::uint64_t base_address_;
  const std::uint64_t capacity_bytes_;
  const std::uint64_t granularity_bytes_;
  const std::uint64_t granule_count_;
  ByteLimit* const limit_;
  DeviceMemory* const memory_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
  std::atomic<std::uint64_t> committed_count_{0};
  std::mutex mutex_;
};

}  // namespace tierpool
