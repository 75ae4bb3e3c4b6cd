#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace tierpool {

/// Base of every error of this library but OutOfMemoryError; Python's `TierpoolError`, a RuntimeError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A configuration value that cannot be used; Python's `ConfigError`, also a ValueError.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A trace that no program can have written, or a file that is no trace; Python's `TraceError`, also a ValueError.
class TraceError : public Error {
 public:
  using Error::Error;
};

/// A pool that cannot be built. The message begins "Failed to initialize MetalMemoryPool".
class InitializationError : public Error {
 public:
  explicit InitializationError(const std::string& reason) : Error("Failed to initialize MetalMemoryPool: " + reason) {}
};

/// Work asked of a pool after close().
class PoolClosedError : public Error {
 public:
  using Error::Error;
};

/// A lease whose buffer went back to its buffer pool, or that another pool gave out.
class StaleBufferError : public Error {
 public:
  using Error::Error;
};

/// A device call that failed for another reason than exhausted memory.
class DeviceError : public Error {
 public:
  using Error::Error;
};

/// Bytes of a file that did not arrive: the disk failed, or the file was changed, cut or removed. Python's OSError.
class ReadError : public Error {
 public:
  using Error::Error;
};

/// Work that was given up because its owner was cancelled or closed.
class CancelledError : public Error {
 public:
  using Error::Error;
};

/// More memory, or more mappings, asked for than were planned for; Python's MemoryError.
class BudgetError : public Error {
 public:
  using Error::Error;
};

/// A handle that names no live block of this pool: released twice, foreign, or not a whole heap. Python's ValueError.
class InvalidHandleError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// No memory for a request; Python's `OutOfMemoryError`, a MemoryError. Carries what a caller needs to react.
class OutOfMemoryError : public std::runtime_error {
 public:
  struct Details {
    std::uint64_t requested_bytes = 0;
    std::uint64_t largest_free_bytes = 0;
    std::uint64_t free_bytes = 0;
    double fragmentation = 0.0;
  };
  OutOfMemoryError(const std::string& message, const Details& details)
      : std::runtime_error(message), details_(details) {}
  [[nodiscard]] const Details& details() const noexcept { return details_; }

 private:
  Details details_;
};

}  // namespace tierpool
