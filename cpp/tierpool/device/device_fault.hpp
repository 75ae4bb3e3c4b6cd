#pragma once

#include <exception>
#include <mutex>
#include <string>
#include <utility>

namespace tierpool {

/// Keeps the reason of a failure that a device call can only answer with false. Thread-safe.
class DeviceFault {
 public:
  /// `describe` is called to give the text, when there is memory for it.
  template <typename Describe>
  void note(Describe describe) noexcept {
    try {
      std::string text = describe();
      const std::lock_guard lock(mutex_);
      text_ = std::move(text);
    } catch (const std::exception&) {
      return;  // no memory to say why: the failure itself was returned
    }
  }

  [[nodiscard]] std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

}  // namespace tierpool
