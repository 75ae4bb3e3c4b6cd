#pragma once

#include <atomic>

namespace tierpool::bindings {

/// Sends the core's records to Python's logger "tierpool" from now on.
void install_python_log_sink();

/// Delivers records at the end of a call from Python, when every lock is free again: stands first in each binding that
/// may log, but for the few that deliver_waiting_records() serves. The sink itself only queues, so that it may run
/// without the GIL, inside NumPy's allocator or at exit.
class LogDelivery {
 public:
  LogDelivery() noexcept;
  /// Needs the GIL. Leaves a Python error that is set as it is.
  ~LogDelivery();
  LogDelivery(const LogDelivery&) = delete;
  LogDelivery& operator=(const LogDelivery&) = delete;
};

extern std::atomic<bool> records_waiting;

/// What LogDelivery does, at the cost of one load when nothing was logged: stands last in a call that holds the GIL all
/// the time, so that no other call can take its records.
inline void deliver_waiting_records() noexcept {
  if (records_waiting.load(std::memory_order_relaxed)) [[unlikely]] {
    const LogDelivery logs;
  }
}

}  // namespace tierpool::bindings
