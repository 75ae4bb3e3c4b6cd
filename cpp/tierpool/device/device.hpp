#pragma once

#include <cstdint>
#include <string>

#include "tierpool/device/stream.hpp"

namespace tierpool {

/// A contiguous address range of one device; physical memory may or may not stand behind it.
struct Reservation {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;   ///< a whole number of granules
  int file_descriptor = -1;  ///< through which its pages can be mapped a second time; -1 where they cannot
};

/// Some addresses of a reservation.
struct AddressRange {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

/// Of what a device takes memory when granules are committed.
enum class CommitScope {
  granules,
  reservation,  ///< of all of it, which goes back whole, too
  always        ///< of all of it with its addresses; decommit is refused
};

/// Memory taken from a device outside any heap: the fallback path.
struct DirectAllocation {
  std::uint64_t address = 0;  ///< 0: the device has no memory left for this request
  bool zeroed = false;        ///< every byte is known to be zero

  explicit operator bool() const noexcept { return address != 0; }
};

/// Where bytes come from. The whole surface a new kind of memory has to provide; no call is on a hot path.
///
/// Every function may be called from any thread at once, but the ranges of concurrent commit and decommit calls on one
/// reservation must not share a granule. Memory shortage is a return value; only reserve() and copy() throw.
class Device {
 public:
  virtual ~Device() = default;

  /// The name a user selects it by: "host", "simulated", "cuda:0".
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// Memory the device has in all, in bytes. A larger heap is refused.
  [[nodiscard]] virtual std::uint64_t total_bytes() const = 0;
  /// Memory that could be committed now, in bytes; an estimate.
  [[nodiscard]] virtual std::uint64_t free_bytes() const = 0;
  /// Unit of commit and decommit, in bytes; a power of two. Reservations are aligned to it.
  [[nodiscard]] virtual std::uint64_t granularity_bytes() const noexcept = 0;
  /// Largest alignment allocate_direct() can serve, in bytes; a power of two.
  [[nodiscard]] virtual std::uint64_t max_alignment_bytes() const noexcept = 0;
  /// Whether the processor can read and write this memory by its address.
  [[nodiscard]] virtual bool host_accessible() const noexcept = 0;
  /// Whether memory reads zero when it is first committed, and again after decommit and commit.
  [[nodiscard]] virtual bool commits_zeroed() const noexcept = 0;

  /// Reserves at least `bytes` addresses (rounded up to granules) and commits nothing.
  /// Throws DeviceError naming the size and the reason, also for 0 bytes.
  [[nodiscard]] virtual Reservation reserve(std::uint64_t bytes) = 0;
  /// Puts physical memory behind whole granules, ready to use; contents of memory already there are kept.
  /// Blocks. False when the device has none left; the range is then as it was or partly committed, and may be
  /// committed or decommitted again.
  [[nodiscard]] virtual bool commit(std::uint64_t address, std::uint64_t bytes) noexcept = 0;
  [[nodiscard]] virtual CommitScope commit_scope() const noexcept { return CommitScope::granules; }
  /// The part of a committed range whose memory goes when the range is decommitted. Less than the range where memory
  /// comes in pieces that go whole, of which some reach beyond it.
  [[nodiscard]] virtual AddressRange decommittable(std::uint64_t address, std::uint64_t bytes) noexcept {
    return {.address = address, .bytes = bytes};
  }
  /// Gives the physical memory of whole granules back; their contents are lost. Granules that were not committed stay
  /// so. False when the device refused; what was committed is so still, its contents are lost.
  [[nodiscard]] virtual bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept = 0;
  /// Ends a reservation and everything committed in it.
  virtual void release(const Reservation& reservation) noexcept = 0;

  /// Memory for one request, outside any reservation. `alignment` is a power of two up to max_alignment_bytes();
  /// 0 bytes count as 1.
  [[nodiscard]] virtual DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept = 0;
  /// Gives back what allocate_direct() returned, with the same `bytes` and `alignment`.
  virtual void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept = 0;

  /// Copies within the device; the ranges must not overlap. Throws DeviceError.
  virtual void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) = 0;

  /// Why its last call that returned a failure did so, when that was no shortage of memory; empty otherwise.
  [[nodiscard]] virtual std::string fault() const { return {}; }

  /// Whether a forked child can go on using it.
  [[nodiscard]] virtual bool survives_fork() const noexcept { return true; }

  /// Its streams, which live as long as the device; null for one whose memory only the processor uses.
  [[nodiscard]] virtual DeviceStreams* streams() noexcept { return nullptr; }
};

}  // namespace tierpool
