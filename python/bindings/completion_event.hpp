#pragma once

#include <memory>

#include "bindings.hpp"
#include "tierpool/arena/completion_event.hpp"

namespace tierpool::bindings {

/// The event behind a Python object with `is_complete()` and `wait()`; none for None. May be used and may end without
/// the GIL. What the object raises goes to sys.unraisablehook, and the work then counts as not complete.
/// Throws TypeError for an object without these two.
[[nodiscard]] std::shared_ptr<CompletionEvent> parse_event(PyObject* event);

}  // namespace tierpool::bindings
