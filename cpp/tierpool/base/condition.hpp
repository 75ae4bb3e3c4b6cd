#pragma once

#include <unistd.h>

#include <condition_variable>
#include <memory>

namespace tierpool {

/// A condition variable that a forked child can destroy. The system's own would wait there, for good, until the
/// parent's threads that were waiting at it have left; this one leaves it alone.
class Condition {
 public:
  Condition() : process_(getpid()), variable_(std::make_unique<std::condition_variable>()) {}
  ~Condition() {
    if (getpid() != process_) {
      static_cast<void>(variable_.release());
    }
  }
  Condition(const Condition&) = delete;
  Condition& operator=(const Condition&) = delete;

  [[nodiscard]] std::condition_variable& operator*() const noexcept { return *variable_; }
  [[nodiscard]] std::condition_variable* operator->() const noexcept { return variable_.get(); }

 private:
  const pid_t process_;
  std::unique_ptr<std::condition_variable> variable_;
};

}  // namespace tierpool
