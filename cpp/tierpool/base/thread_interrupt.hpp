#pragma once

namespace tierpool {

/// Prepares interrupt_threads() for this process. False when the system cannot do it.
[[nodiscard]] bool enable_thread_interrupt() noexcept;

/// After the call, every other thread of the process has gone through a full memory barrier since the call began. Only
/// after enable_thread_interrupt() was true, or it does nothing where the system cannot do it; ends the process, with
/// the reason on stderr, when the system refuses.
void interrupt_threads() noexcept;

}  // namespace tierpool
