#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tierpool/base/thread_interrupt.hpp"

namespace tierpool {

bool enable_thread_interrupt() noexcept {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void interrupt_threads() noexcept {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
    // Going on would let two threads into what one of them has locked.
    std::perror("tierpool: membarrier failed, although this process has registered for it");
    std::abort();
  }
}

}  // namespace tierpool
