#pragma once

#include <cstddef>
#include <vector>

#include "array_layout.hpp"
#include "bindings.hpp"
#include "lease_type.hpp"

namespace tierpool::bindings {

/// What `BufferPool.alloc_batch` asks for.
struct LeaseRequests {
  std::vector<std::uint64_t> sizes;
  std::vector<ArrayLayout> layouts;  ///< one a size, or none: all are the default
};

/// From an integer array, or an iterable of sizes and tuples (nbytes, dtype, shape). Throws as BufferPool.alloc.
[[nodiscard]] LeaseRequests parse_requests(py::handle requests);

/// What `BufferPool.alloc_batch` returns. Guarded by the GIL.
class LeaseBatch {
 public:
  /// Leases that the pool gave out for the requests, in their order.
  LeaseBatch(BufferPoolPointer pool, std::vector<Lease> leases, std::vector<ArrayLayout> layouts) noexcept
      : pool_(std::move(pool)), leases_(std::move(leases)), layouts_(std::move(layouts)) {}
  LeaseBatch(LeaseBatch&& other) noexcept = default;
  LeaseBatch& operator=(LeaseBatch&&) = delete;
  LeaseBatch(const LeaseBatch&) = delete;
  LeaseBatch& operator=(const LeaseBatch&) = delete;
  ~LeaseBatch() { release_unmade(); }

  [[nodiscard]] std::size_t size() const noexcept { return leases_.size(); }
  [[nodiscard]] const std::vector<Lease>& leases() const noexcept { return leases_; }
  [[nodiscard]] bool released() const noexcept { return released_; }
  /// Throws StaleBufferError when the batch was released or its pool reset since.
  void check_live() const;
  /// The lease at `index`, made an object when first asked for; that then ends it.
  [[nodiscard]] py::object item(std::size_t index);
  /// All or nothing: BufferError while a view of any item is alive and the pool does not cut it off.
  void release();

 private:
  void release_unmade() noexcept;

  BufferPoolPointer pool_;
  std::vector<Lease> leases_;
  std::vector<ArrayLayout> layouts_;
  std::vector<py::object> items_;  ///< none until the first is asked for
  bool released_ = false;
};

}  // namespace tierpool::bindings
