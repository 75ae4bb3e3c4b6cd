#pragma once

#include <cstdint>

namespace tierpool {

/// The pointer to a host address. Devices speak in integers, because most of their memory cannot be dereferenced.
[[nodiscard]] inline void* pointer_at(std::uint64_t address) noexcept {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

[[nodiscard]] inline std::uint64_t address_of(const void* pointer) noexcept {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer));
}

}  // namespace tierpool
