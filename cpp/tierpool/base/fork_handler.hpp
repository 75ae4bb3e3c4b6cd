#pragma once

#include <functional>
#include <utility>

namespace tierpool {

/// Runs `before` in the parent before a fork and one of the others behind it in parent and child, for as long as it
/// lives: the owner takes its locks and lets them go, so that the child never finds one held by a thread it does not
/// have.
///
/// Make it the owner's last member. Handlers of a lower rank run their `before` first; a lock that is taken while
/// another is held has the higher rank.
class ForkHandler {
 public:
  enum class Rank { directory, lanes, pool, device, log };

  using Action = std::function<void()>;

  ForkHandler(Rank rank, Action before, const Action& after) : ForkHandler(rank, std::move(before), after, after) {}
  ForkHandler(Rank rank, Action before, Action after_in_parent, Action after_in_child);
  ~ForkHandler();
  ForkHandler(const ForkHandler&) = delete;
  ForkHandler& operator=(const ForkHandler&) = delete;

  [[nodiscard]] Rank rank() const noexcept { return rank_; }
  void before() const { before_(); }
  void after_in_parent() const { after_in_parent_(); }
  void after_in_child() const { after_in_child_(); }

 private:
  Rank rank_;
  Action before_;
  Action after_in_parent_;
  Action after_in_child_;
};

}  // namespace tierpool
