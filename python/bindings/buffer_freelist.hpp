#pragma once

namespace tierpool::bindings {

// Memory of dead Buffer objects for the next ones. Under the GIL there is one list for all threads, without it one per
// thread: two sources, of which CMake takes one.

/// Null when none is kept.
[[nodiscard]] void* take_recycled() noexcept;
/// Keeps an object's memory, which then holds no object any more; false when there are enough, and it is to be freed.
[[nodiscard]] bool recycle(void* memory) noexcept;

}  // namespace tierpool::bindings
