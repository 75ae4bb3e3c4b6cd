#pragma once

#include <cstdint>
#include <vector>

namespace tierpool {

/// The buffers of one class size. Events are counted since the pool was made.
struct SizeClassStatistics {
  std::uint64_t class_bytes = 0;
  std::uint64_t in_use_count = 0;
  std::uint64_t free_count = 0;
  std::uint64_t fresh = 0;            ///< leases that took a buffer from the source
  std::uint64_t reused = 0;           ///< leases that took a free buffer
  std::uint64_t requested_bytes = 0;  ///< sum over all leases

  [[nodiscard]] std::uint64_t leases() const noexcept { return fresh + reused; }
  /// Class bytes less requested bytes, over all leases.
  [[nodiscard]] std::uint64_t waste_bytes() const noexcept { return leases() * class_bytes - requested_bytes; }
};

/// External memory that a buffer pool knows of.
struct ResidencyStatistics {
  std::uint64_t registered_count = 0;
  std::uint64_t registered_bytes = 0;
  std::uint64_t pinned_bytes = 0;  ///< of these, locked into RAM
};

/// One buffer pool at one moment, exact: taken under the lock that every change needs. Bytes are class bytes unless
/// called requested. Events are counted since the pool was made.
struct BufferPoolStatistics {
  std::uint64_t fresh = 0;
  std::uint64_t reused = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t leased_bytes = 0;  ///< class bytes of all leases
  std::uint64_t resets = 0;

  std::uint64_t in_use_count = 0;
  std::uint64_t in_use_bytes = 0;
  std::uint64_t live_requested_bytes = 0;  ///< what holders of live leases asked for
  std::uint64_t high_water_bytes = 0;      ///< the most in_use_bytes ever were
  std::uint64_t free_count = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t quarantined_count = 0;  ///< waiting for a completion event
  std::uint64_t quarantined_bytes = 0;
  std::uint64_t held_count = 0;  ///< all of the above and, under load, what is being prepared
  std::uint64_t held_bytes = 0;
  std::uint64_t live_views = 0;
  ResidencyStatistics residency;
  std::vector<SizeClassStatistics> classes;  ///< by size; only those that have, or had, a lease or a buffer

  [[nodiscard]] std::uint64_t leases() const noexcept { return fresh + reused; }
  /// Class bytes less requested bytes, over all leases.
  [[nodiscard]] std::uint64_t waste_bytes() const noexcept { return leased_bytes - requested_bytes; }
  /// The same as a share of the requested bytes; 0 when nothing was requested.
  [[nodiscard]] double waste_ratio() const noexcept;
  /// Share of leases that took a free buffer; 0 when there were none.
  [[nodiscard]] double reuse_rate() const noexcept;
};

}  // namespace tierpool
