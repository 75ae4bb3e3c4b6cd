#pragma once

#include <cstddef>
#include <vector>

#include "bindings.hpp"
#include "buffer_type.hpp"
#include "tierpool/pool/buffer.hpp"

namespace tierpool::bindings {

/// What `MemoryPool.allocate_batch` returns. Guarded by the GIL.
class BufferBatch {
 public:
  explicit BufferBatch(std::vector<Buffer> memory);
  BufferBatch(BufferBatch&&) = default;
  BufferBatch& operator=(BufferBatch&&) = default;
  BufferBatch(const BufferBatch&) = delete;
  BufferBatch& operator=(const BufferBatch&) = delete;
  ~BufferBatch() = default;

  [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
  [[nodiscard]] const std::vector<Allocation>& allocations() const noexcept { return allocations_; }
  [[nodiscard]] bool released() const noexcept { return released_; }
  void check_not_released() const;
  /// The buffer at `index`, made when first asked for; it then owns its memory itself.
  [[nodiscard]] py::object item(std::size_t index);
  /// All or nothing: BufferError while a view of any item is alive.
  void release();

 private:
  std::vector<Buffer> memory_;  ///< empty where the item exists
  std::vector<Allocation> allocations_;
  std::vector<py::object> items_;
  bool released_ = false;
};

}  // namespace tierpool::bindings
