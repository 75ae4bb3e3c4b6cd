#pragma once

#include <cstddef>
#include <cstdint>

namespace tierpool {

/// A zero-filled table of 32-bit entries over reserved addresses: only the pages that are written cost memory.
/// Not thread-safe: guarded by its owner's lock.
class SparseTable {
 public:
  /// Throws std::bad_alloc when the address range cannot be reserved.
  explicit SparseTable(std::size_t entry_count);
  ~SparseTable();
  SparseTable(const SparseTable&) = delete;
  SparseTable& operator=(const SparseTable&) = delete;

  [[nodiscard]] std::uint32_t& operator[](std::size_t index) noexcept { return entries_[index]; }
  [[nodiscard]] std::size_t size() const noexcept { return entry_count_; }

 private:
  std::size_t entry_count_;
  std::uint32_t* entries_;
};

}  // namespace tierpool
