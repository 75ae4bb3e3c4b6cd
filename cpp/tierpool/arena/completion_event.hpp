#pragma once

namespace tierpool {

/// Work in flight on a device that still uses buffers after the program is done with them.
///
/// Both functions are called from any thread, with no lock of a buffer pool held; they must not call that pool.
class CompletionEvent {
 public:
  virtual ~CompletionEvent() = default;

  /// Whether the work is done; once true, always true. Does not block.
  [[nodiscard]] virtual bool is_complete() noexcept = 0;
  /// Blocks until the work is done. May give up: is_complete() then stays false, and the buffers out of use.
  virtual void wait() noexcept = 0;
};

}  // namespace tierpool
