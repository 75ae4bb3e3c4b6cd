#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pool_calls.hpp"
#include "tierpool/pool/allocation.hpp"

namespace tierpool::bindings {

/// What `MemoryPool.allocate_batch` returns: the allocations in one array, and a Python object for each that was asked
/// for. Guarded by the GIL.
class BufferBatch {
 public:
  explicit BufferBatch(MemoryPool& pool);
  BufferBatch(BufferBatch&&) = default;
  BufferBatch& operator=(BufferBatch&&) = delete;
  BufferBatch(const BufferBatch&) = delete;
  BufferBatch& operator=(const BufferBatch&) = delete;
  ~BufferBatch();

  /// Allocates one item a size. Throws as MemoryPool::allocate_batch(). Once, at first; needs no GIL.
  void allocate(std::span<const std::uint64_t> sizes) { pool_->allocate_batch(sizes, allocations_); }

  [[nodiscard]] std::size_t size() const noexcept { return allocations_.size(); }
  [[nodiscard]] const std::vector<Allocation>& allocations() const noexcept { return allocations_; }
  [[nodiscard]] bool released() const noexcept { return released_; }
  void check_not_released() const;
  /// The buffer at `index`, made when first asked for; it then owns its memory itself.
  [[nodiscard]] py::object item(std::size_t index);
  /// All or nothing: BufferError while a view of any item is alive.
  void release();

 private:
  void release_unmade() noexcept;

  MemoryPool* pool_;                     // kept alive by the allocations
  std::vector<Allocation> allocations_;  ///< also after release(), for their sizes
  std::vector<py::object> items_;        ///< empty until the first is asked for; null where none was
  bool released_ = false;
};

}  // namespace tierpool::bindings
