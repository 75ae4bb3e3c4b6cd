#pragma once

#include <cstdint>

namespace tierpool::bindings {

/// Memory of one array; empty when there is none.
struct ArrayBlock {
  std::uint64_t address = 0;
  std::uint64_t usable_bytes = 0;  ///< as many as was asked for, or more
  std::uint64_t dirty_bytes = 0;   ///< leading bytes that may be non-zero

  explicit operator bool() const noexcept { return address != 0; }
};

/// Where the arrays of one NumPy handler live. NumPy calls with the GIL held and expects no other code to run, so that
/// it stays held.
class ArrayMemory {
 public:
  ArrayMemory() = default;
  virtual ~ArrayMemory() = default;
  ArrayMemory(const ArrayMemory&) = delete;
  ArrayMemory& operator=(const ArrayMemory&) = delete;

  /// An empty block becomes NumPy's MemoryError.
  [[nodiscard]] virtual ArrayBlock take(std::uint64_t bytes) noexcept = 0;
  /// The live array at that address; empty when there is none here.
  [[nodiscard]] virtual ArrayBlock find(std::uint64_t address) noexcept = 0;
  /// Ends the array at that address. False when there is none here.
  [[nodiscard]] virtual bool release(std::uint64_t address) noexcept = 0;
  [[nodiscard]] virtual bool is_closed() const noexcept = 0;
};

}  // namespace tierpool::bindings
