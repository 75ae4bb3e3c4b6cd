#pragma once

#include <cstdint>

namespace tierpool {

/// Has the system put memory behind every page that overlaps the range, by writing to each; contents are kept, also
/// those that other threads write meanwhile. The range must be mapped and writable. Thread-safe.
void touch_pages(std::uint64_t address, std::uint64_t bytes) noexcept;

}  // namespace tierpool
