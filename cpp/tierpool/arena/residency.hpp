#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "tierpool/arena/buffer_pool_statistics.hpp"
#include "tierpool/arena/page_pins.hpp"
#include "tierpool/base/fork_handler.hpp"

namespace tierpool {

/// External memory that a pool accounts for.
struct Registration {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  bool pinned = false;  ///< locked into RAM; false when that is switched off or the system refused
};

/// Address ranges of memory that somebody else owns: accounted for and, where the system allows it, locked into RAM.
/// Thread-safe.
class Residency {
 public:
  /// `pins` outlives this object; none: nothing is locked.
  explicit Residency(PagePins* pins) : pins_(pins) {}
  ~Residency() { clear(); }
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  /// Registers a range; blocks while the system reads it in. False when this very range is registered already.
  /// Throws std::invalid_argument for an empty or impossible range and for one that overlaps another.
  bool add(std::uint64_t address, std::uint64_t bytes);
  /// Ends the registration of this very range. False when there is none.
  bool remove(std::uint64_t address, std::uint64_t bytes) noexcept;
  void clear() noexcept;

  /// By address.
  [[nodiscard]] std::vector<Registration> registrations() const;
  [[nodiscard]] ResidencyStatistics statistics() const noexcept;

 private:
  struct Range {
    std::uint64_t bytes = 0;
    PagePins::Token token = 0;
    bool is_pinning = false;  // its token is not known yet
  };

  [[nodiscard]] bool insert(std::uint64_t address, std::uint64_t bytes);
  [[nodiscard]] bool is_pinned(const Range& range) const noexcept {
    return pins_ != nullptr && pins_->holds(range.token);
  }

  PagePins* const pins_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Range> ranges_;  // by address
  ForkHandler fork_handler_{ForkHandler::Rank::pool, [this] { mutex_.lock(); }, [this] { mutex_.unlock(); }};
};

}  // namespace tierpool
