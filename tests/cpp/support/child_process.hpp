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

/// As exit_status_of_child, where other threads of the parent allocate meanwhile. The malloc of GCC's sanitizers leaves
/// its locks held in such a child, which then waits for ever now and then: there the child leaves at once with 0, and
/// only the parent's side of the fork is tested.
[[nodiscard]] inline int exit_status_beside_threads(const std::function<int()>& work) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static_cast<void>(work);
  return exit_status_of_child([] { return 0; });
#else
  return exit_status_of_child(work);
#endif
}

}  // namespace tierpool::testing
