#pragma once

#include <functional>

namespace tierpool {

/// Runs `before` in the parent before a fork and `after` in parent and child behind it, for as long as it lives: the
/// owner takes its locks and lets them go, so that the child never finds one held by a thread it does not have.
///
/// Make it the owner's last member. Handlers of a lower rank run their `before` first; a lock that is taken while
/// another is held has the higher rank.
class ForkHandler {
 public:
  enum class Rank { pool, device, log };

  ForkHandler(Rank rank, std::function<void()> before, std::function<void()> after);
  ~ForkHandler();
  ForkHandler(const ForkHandler&) = delete;
  ForkHandler& operator=(const ForkHandler&) = delete;

  [[nodiscard]] Rank rank() const noexcept { return rank_; }
  void before() const { before_(); }
  void after() const { after_(); }

 private:
  Rank rank_;
  std::function<void()> before_;
  std::function<void()> after_;
};

}  // namespace tierpool
