#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tierpool/base/thread_interrupt.hpp"

namespace tierpool {

bool enable_thread_interrupt() noexcept {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void interrupt_threads() noexcept { syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0); }

}  // namespace tierpool
