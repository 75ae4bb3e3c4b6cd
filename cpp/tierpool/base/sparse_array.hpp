#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>

namespace tierpool {

/// Zero-filled pages that cost memory only where they are written. Throws std::bad_alloc when there are no addresses.
[[nodiscard]] void* reserve_sparse_bytes(std::size_t bytes);
void release_sparse_bytes(void* address, std::size_t bytes) noexcept;

/// A zero-filled array over reserved addresses: only the pages that are written cost memory, and no entry ever moves.
/// Distinct entries may be used by distinct threads.
template <typename T>
class SparseArray {
  static_assert(std::is_trivially_destructible_v<T>, "entries are never destroyed");

 public:
  /// Throws std::bad_alloc when the address range cannot be reserved.
  explicit SparseArray(std::size_t size) : size_(size == 0 ? 1 : size) {
    if (size_ > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
      throw std::bad_alloc();
    }
    entries_ = static_cast<T*>(reserve_sparse_bytes(size_ * sizeof(T)));
  }
  ~SparseArray() { release_sparse_bytes(entries_, size_ * sizeof(T)); }
  SparseArray(const SparseArray&) = delete;
  SparseArray& operator=(const SparseArray&) = delete;

  [[nodiscard]] T& operator[](std::size_t index) noexcept { return entries_[index]; }
  [[nodiscard]] const T& operator[](std::size_t index) const noexcept { return entries_[index]; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  std::size_t size_;
  T* entries_;
};

}  // namespace tierpool
