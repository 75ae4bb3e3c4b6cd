#pragma once

#include <memory>
#include <utility>

#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// Owns one allocation, which keeps its pool alive; gives the memory back when it goes. Not thread-safe by itself, but
/// may be destroyed on any thread.
class Buffer {
 public:
  Buffer() = default;
  Buffer(MemoryPool& pool, const Allocation& allocation) noexcept : pool_(&pool), allocation_(allocation) {}
  Buffer(Buffer&& other) noexcept : pool_(other.pool_), allocation_(std::exchange(other.allocation_, Allocation{})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      release();
      pool_ = other.pool_;
      allocation_ = std::exchange(other.allocation_, Allocation{});
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  /// Gives the memory back now; does nothing when it has gone already.
  void release() noexcept {
    if (allocation_) {
      static_cast<void>(pool_->release(std::exchange(allocation_, Allocation{})));
    }
  }

  /// As release(), where that cannot block; else does nothing, and says so.
  [[nodiscard]] bool release_at_once() noexcept {
    if (allocation_ && !pool_->release_to_magazine(allocation_)) {
      return false;
    }
    allocation_ = Allocation{};
    return true;
  }
  /// Whether release() may have to wait for the device.
  [[nodiscard]] bool may_wait() const noexcept { return allocation_ && pool_->release_may_wait(allocation_); }

  /// As MemoryPool::release() behind the work of a stream.
  void release(StreamHandle stream) noexcept {
    if (allocation_) {
      static_cast<void>(pool_->release(std::exchange(allocation_, Allocation{}), stream));
    }
  }
  /// That a further stream uses the memory; see MemoryPool::record_stream().
  void record_stream(StreamHandle stream) noexcept {
    if (allocation_) {
      static_cast<void>(pool_->record_stream(allocation_, stream));
    }
  }

  /// Whether there is memory here.
  explicit operator bool() const noexcept { return static_cast<bool>(allocation_); }
  [[nodiscard]] const Allocation& allocation() const noexcept { return allocation_; }
  /// The pool of an allocation that is there.
  [[nodiscard]] MemoryPool& pool() const noexcept { return *pool_; }

 private:
  MemoryPool* pool_ = nullptr;
  Allocation allocation_;
};

}  // namespace tierpool
