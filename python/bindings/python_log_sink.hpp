#pragma once

namespace tierpool::bindings {

/// Sends the core's records to Python's logger "tierpool" from now on.
void install_python_log_sink();

/// Delivers records at the end of a call from Python, when every lock is free again: stands first in each binding that
/// may log. The sink itself only queues, so that it may run without the GIL, inside NumPy's allocator or at exit.
class LogDelivery {
 public:
  LogDelivery() noexcept;
  /// Needs the GIL. Leaves a Python error that is set as it is.
  ~LogDelivery();
  LogDelivery(const LogDelivery&) = delete;
  LogDelivery& operator=(const LogDelivery&) = delete;
};

}  // namespace tierpool::bindings
