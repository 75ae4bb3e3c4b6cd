#pragma once

#include <cstdint>
#include <cstdlib>

#include "support/weight_bytes.hpp"
#include "tierpool/base/address.hpp"

namespace tierpool::testing {

/// Page-aligned memory, filled with 0xee.
class PageBuffer {
 public:
  explicit PageBuffer(std::uint64_t bytes) : bytes_(bytes), memory_(std::aligned_alloc(system_page_bytes(), bytes)) {
    std::memset(memory_, 0xee, bytes);
  }
  ~PageBuffer() { std::free(memory_); }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  [[nodiscard]] std::uint64_t address() const noexcept { return address_of(memory_); }
  [[nodiscard]] bool is_untouched() const noexcept {
    const auto* bytes = static_cast<const unsigned char*>(memory_);
    for (std::uint64_t i = 0; i < bytes_; ++i) {
      if (bytes[i] != 0xee) {
        return false;
      }
    }
    return true;
  }

 private:
  const std::uint64_t bytes_;
  void* const memory_;
};

}  // namespace tierpool::testing
