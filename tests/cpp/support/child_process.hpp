#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace tierpool::testing {

/// The exit status of a forked child that runs `work`; -1 when it was killed, for hanging for instance.
[[nodiscard]] inline int exit_status_of_child(const std::function<int()>& work) {
  constexpr unsigned kHangSeconds = 60;
  const pid_t child = fork();
  if (child == 0) {
    alarm(kHangSeconds);
    _exit(work());
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace tierpool::testing
