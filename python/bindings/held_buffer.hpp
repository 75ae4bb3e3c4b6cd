#pragma once

#include "buffer_type.hpp"

namespace tierpool::bindings {

/// Keeps a buffer's memory where it is: a release by another thread is refused meanwhile. The object has to live on.
class HeldBuffer {
 public:
  /// Throws ValueError when the buffer was given up.
  explicit HeldBuffer(BufferObject& buffer) : buffer_(buffer) {
    if (!begin_view(buffer)) {
      check_not_given_up(buffer);  // throws
    }
  }
  ~HeldBuffer() { end_view(buffer_); }
  HeldBuffer(const HeldBuffer&) = delete;
  HeldBuffer& operator=(const HeldBuffer&) = delete;

  [[nodiscard]] BufferObject& buffer() const noexcept { return buffer_; }

 private:
  BufferObject& buffer_;
};

}  // namespace tierpool::bindings
