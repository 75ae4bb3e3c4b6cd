#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "array_layout.hpp"
#include "bindings.hpp"
#include "buffer_views.hpp"
#include "memory_end.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool::bindings {

using BufferPoolPointer = std::shared_ptr<BufferPool>;

/// A lease that a Python object and its DLPack exports hold together. Knows no Python: the last of them may end on any
/// thread, without the GIL, after finalisation.
class SharedLease {
 public:
  SharedLease(BufferPoolPointer pool, const Lease& lease) noexcept : pool_(std::move(pool)), lease_(lease) {}
  ~SharedLease() { end_lease(*pool_, lease_); }
  SharedLease(const SharedLease&) = delete;
  SharedLease& operator=(const SharedLease&) = delete;

  [[nodiscard]] BufferPool& pool() const noexcept { return *pool_; }
  [[nodiscard]] const Lease& lease() const noexcept { return lease_; }

 private:
  const BufferPoolPointer pool_;
  const Lease lease_;
};

/// The Python object `tierpool.Lease`: a handle on one lease. Refers to no Python object that could refer to it, so
/// that it carries no header for the cycle collector. What is not atomic is guarded by the GIL.
///
/// The lease ends when the handle is given up (released, left, or dead) and no view, DLPack export or bare address is
/// left that shows the memory, and in any case when the pool is reset.
struct LeaseObject {
  PyObject_HEAD PyObject* weak_references;
  BufferPoolPointer pool;
  Lease lease;
  ArrayLayout layout;
  BufferViews views;                    ///< each is also counted by the pool
  std::shared_ptr<SharedLease> shared;  ///< made by the first DLPack export
  std::vector<Py_ssize_t> extents;      ///< shape and strides of views, made by the first
  LeaseObject* previous_viewed;         ///< of those that had a view, see viewed_leases.hpp
  LeaseObject* next_viewed;
};

/// A new `tierpool.Lease` that holds `lease` of `pool`; null with a Python error set when there is no memory for the
/// object, and the lease is then released.
[[nodiscard]] PyObject* new_lease(const BufferPoolPointer& pool, const Lease& lease, ArrayLayout layout) noexcept;

[[nodiscard]] bool is_lease(py::handle object) noexcept;
/// The object behind a handle that is_lease().
[[nodiscard]] LeaseObject& lease_object(py::handle lease) noexcept;

/// Throws StaleBufferError unless the lease is live and was not given up.
void check_live(const LeaseObject& lease);
/// Throws BufferError when something sees the memory of a live lease and its pool does not cut it off.
void check_releasable(const LeaseObject& lease);
/// Gives the handle up; the lease ends now or with the last that sees its memory. Nothing happens to a stale one.
void give_up(LeaseObject& lease) noexcept;
/// Ends the lease now. Throws StaleBufferError, also when `pool` is another one; BufferError for live views that the
/// pool does not cut off.
void release_now(LeaseObject& lease, BufferPool& pool);

/// Counts one more view of a live lease. Throws StaleBufferError, BufferError when the processor cannot reach it.
void begin_view(LeaseObject& lease);
void end_view(LeaseObject& lease) noexcept;

}  // namespace tierpool::bindings
