#pragma once

namespace tierpool {

/// Prepares interrupt_threads() for this process. False when the system cannot do it.
[[nodiscard]] bool enable_thread_interrupt() noexcept;

/// After the call, every other thread of the process has gone through a full memory barrier since the call began.
void interrupt_threads() noexcept;

}  // namespace tierpool
