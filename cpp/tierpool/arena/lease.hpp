#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace tierpool {

inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

/// One handing-out of a buffer by a buffer pool. A plain value: it owns nothing, and a stale or foreign one is
/// recognised by its serial, which its pool gives out once.
struct Lease {
  std::uint64_t address = 0;
  std::uint64_t requested_bytes = 0;  ///< what the caller asked for and may use
  std::uint64_t class_bytes = 0;      ///< what the buffer holds; never shown as a length
  std::uint64_t serial = 0;
  std::uint32_t slot = kNoSlot;
  std::uint32_t pool = 0;  ///< the id of its pool, unique in the process

  explicit operator bool() const noexcept { return serial != 0; }
  bool operator==(const Lease&) const = default;
};

enum class LeaseState {
  live,
  released,  ///< given back one by one
  reset,     ///< its epoch is over: the pool was reset after it was handed out
  foreign,   ///< of another pool, or made up
};

enum class ReleaseOutcome {
  released,
  has_views,  ///< checked mode: somebody still looks at the memory; nothing changed
  stale,      ///< released before, or from before the last reset; nothing changed
  foreign,    ///< not of this pool; nothing changed
};

enum class ResetOutcome {
  done,
  live_views,  ///< checked mode: somebody still looks at the memory; nothing changed
};

/// A live lease that has views.
struct ViewedLease {
  Lease lease;
  std::uint32_t views = 0;
  std::string origin;  ///< empty unless the pool tracks origins and was told this one
};

}  // namespace tierpool
