#pragma once

#include <cstdint>
#include <string>

namespace tierpool {

/// Why bytes did not arrive.
enum class ReadFault {
  none,
  failed,   ///< the system reported an error
  ended,    ///< the file ended before its size
  changed,  ///< the file was written to, cut or extended since it was opened
  gone      ///< the file was removed since it was opened
};

struct ReadResult {
  std::uint64_t bytes = 0;  ///< read from the beginning of the range; all of it unless there is a fault
  ReadFault fault = ReadFault::none;
  int error_number = 0;  ///< errno, for ReadFault::failed
};

/// Something that bytes are read from by offset: a file, or a test's stand-in. Thread-safe.
class ReadSource {
 public:
  virtual ~ReadSource() = default;

  /// For messages: a file's path.
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// When it was opened.
  [[nodiscard]] virtual std::uint64_t size_bytes() const noexcept = 0;
  /// Reads up to `bytes` at `offset_bytes`, which lies inside, less only where the source ends. Blocks. Offset, size
  /// and destination are whole pages; what lies behind the source's end is not written.
  [[nodiscard]] virtual ReadResult read(std::uint64_t offset_bytes, std::uint64_t bytes,
                                        std::uint64_t destination) noexcept = 0;
};

}  // namespace tierpool
