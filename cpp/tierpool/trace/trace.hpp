#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tierpool {

/// One allocation or free of a trace. Slots number what is live at the same moment, from 0 up, so that a replay keeps
/// its allocations in an array.
struct TraceEvent {
  std::uint64_t bytes = 0;
  std::uint32_t slot = 0;
  bool allocates = false;
};

/// The allocations and frees of a recorded program, in order, known to be consistent. Immutable: may be read from any
/// thread.
class Trace {
 public:
  static constexpr std::uint8_t kAllocate = 'a';
  static constexpr std::uint8_t kFree = 'f';

  /// Event i is `ops[i]` of `ids[i]` with `bytes[i]` bytes and stands in line `first_line + i` of its file. The ids may
  /// come in any order, may be used again after their free, and need not be freed.
  /// Throws TraceError naming the line for an unknown operation, an id allocated while it is live, a free of an id that
  /// is not live or of another size, and more than 2^32 - 1 allocations or 1 EiB live at once;
  /// std::invalid_argument when the arrays differ in length.
  Trace(std::span<const std::uint8_t> ops, std::span<const std::uint64_t> ids, std::span<const std::uint64_t> bytes,
        std::uint64_t first_line);

  [[nodiscard]] const std::vector<TraceEvent>& events() const noexcept { return events_; }
  [[nodiscard]] std::uint64_t event_count() const noexcept { return events_.size(); }
  [[nodiscard]] std::uint64_t allocation_count() const noexcept { return allocation_count_; }
  /// Every slot is below this.
  [[nodiscard]] std::uint32_t slot_count() const noexcept { return slot_count_; }
  /// The most requested bytes that were live at once.
  [[nodiscard]] std::uint64_t peak_live_bytes() const noexcept { return peak_live_bytes_; }

 private:
  std::vector<TraceEvent> events_;
  std::uint64_t allocation_count_ = 0;
  std::uint32_t slot_count_ = 0;
  std::uint64_t peak_live_bytes_ = 0;
};

}  // namespace tierpool
