#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "tierpool/base/fork_handler.hpp"

namespace tierpool {

/// Locks pages into RAM for several owners: the system forgets a page at the first unlock, so that each page is counted
/// and unlocked when its last owner has let go.
///
/// Thread-safe. Blocks while the system reads pages in, with no lock held. The child of a fork has no page locked, and
/// none of its parent's pins.
class PagePins {
 public:
  /// What locks and unlocks whole pages; lock_pages returns false when the system refuses.
  struct Calls {
    bool (*lock_pages)(std::uint64_t address, std::uint64_t bytes) = nullptr;
    void (*unlock_pages)(std::uint64_t address, std::uint64_t bytes) = nullptr;
  };
  /// Stands for pins of one process; 0 for none.
  using Token = std::uint64_t;

  explicit PagePins(Calls calls);
  ~PagePins() = default;
  PagePins(const PagePins&) = delete;
  PagePins& operator=(const PagePins&) = delete;

  /// The pins of this process, by mlock().
  [[nodiscard]] static PagePins& of_process();

  /// Pins every page the range touches. 0 when the system refuses or has no memory to remember it; nothing is pinned
  /// then. `bytes` is not 0 and the range does not wrap.
  [[nodiscard]] Token pin(std::uint64_t address, std::uint64_t bytes) noexcept;
  /// Lets go of a range that pin() gave the token for.
  void unpin(std::uint64_t address, std::uint64_t bytes, Token token) noexcept;
  /// Whether pins of that token hold in this process.
  [[nodiscard]] bool holds(Token token) noexcept;

 private:
  using Range = std::pair<std::uint64_t, std::uint64_t>;  // first page, end

  [[nodiscard]] Range pages_of(std::uint64_t address, std::uint64_t bytes) const noexcept;
  // All of these expect mutex_ to be held.
  void forget_parent() noexcept;
  void split(std::uint64_t page);
  void add(const Range& pages);
  void remove(const Range& pages) noexcept;

  const Calls calls_;
  const std::uint64_t page_bytes_;
  std::mutex mutex_;
  pid_t process_;
  Token token_ = 1;
  std::map<std::uint64_t, std::uint32_t> owners_;  // from this page to the next key
  ForkHandler fork_handler_{ForkHandler::Rank::device, [this] { mutex_.lock(); }, [this] { mutex_.unlock(); }};
};

}  // namespace tierpool
