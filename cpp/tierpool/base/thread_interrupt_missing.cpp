#include "tierpool/base/thread_interrupt.hpp"

namespace tierpool {

bool enable_thread_interrupt() noexcept { return false; }

void interrupt_threads() noexcept {}

}  // namespace tierpool
