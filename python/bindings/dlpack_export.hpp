#pragma once

#include <atomic>
#include <utility>

#include "bindings.hpp"
#include "buffer_type.hpp"
#include "dlpack_capsule.hpp"
#include "memory_end.hpp"
#include "tierpool/pool/buffer.hpp"

namespace tierpool::bindings {

/// One allocation owned by a Python buffer and its DLPack exports together. Needs no Python: the last owner may let go
/// on any thread, without the GIL, after finalisation.
class SharedBuffer {
 public:
  explicit SharedBuffer(Buffer memory) noexcept : memory_(std::move(memory)) {}
  SharedBuffer(const SharedBuffer&) = delete;
  SharedBuffer& operator=(const SharedBuffer&) = delete;

  void add_owner() noexcept { owner_count_.fetch_add(1, std::memory_order_relaxed); }
  /// The last owner's call gives the memory back and ends this object.
  void remove_owner() noexcept {
    if (owner_count_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete this;
    }
  }
  /// Owners besides the Python buffer, while that is one.
  [[nodiscard]] int export_count() const noexcept { return owner_count_.load(std::memory_order_acquire) - 1; }
  [[nodiscard]] Buffer& memory() noexcept { return memory_; }

 private:
  ~SharedBuffer() { give_back(memory_); }

  Buffer memory_;
  std::atomic<int> owner_count_{1};
};

/// `Buffer.__dlpack__`: a capsule over the bytes as a one-dimensional uint8 tensor, versioned when the consumer can
/// read that. On a GPU the consumer's stream waits for the buffer's own, and the memory for what that stream has been
/// given when it is released. Throws BufferError for a device, copy or stream the buffer cannot offer.
[[nodiscard]] py::object export_dlpack(BufferObject& buffer, const DlpackArguments& arguments);

/// `Buffer.__dlpack_device__`: (kDLCPU, 0) or (kDLCUDA, its index).
[[nodiscard]] py::tuple dlpack_device(const BufferObject& buffer);

}  // namespace tierpool::bindings
