#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tierpool/arena/slot_table.hpp"

namespace tierpool {

/// Epochs in a row with a fresh lease that make the alarm go off. The working set of a program that repeats itself is
/// complete after one or two.
inline constexpr std::uint32_t kGrowingEpochs = 8;
/// Fresh leases since the last reset that make the alarm go off: about ten times what one token of a large model takes.
inline constexpr std::uint64_t kFreshWithoutReset = 16384;

/// Notices a pool that keeps growing because resets are missing, or because no two epochs ask for the same sizes.
/// Goes off once. Not thread-safe: guarded by its owner's lock.
class GrowthAlarm {
 public:
  /// Tells of fresh leases. Whether to warn now.
  [[nodiscard]] bool note_fresh(std::uint64_t count) noexcept;

  struct EpochEnd {
    bool warn = false;
    bool quiet_again = false;  ///< the first epoch without a fresh lease after others
  };
  /// Tells of a reset.
  [[nodiscard]] EpochEnd note_reset() noexcept;

  /// The warning: what was noticed, the classes (most first), and what to look at.
  [[nodiscard]] std::string message(std::span<const FreshCount> classes, std::span<const std::string> origins,
                                    bool tracks_origins) const;

 private:
  std::uint64_t fresh_in_epoch_ = 0;
  std::uint32_t growing_epochs_ = 0;
  bool has_warned_ = false;
};

}  // namespace tierpool
