#pragma once

#include <cstdint>

#include "tierpool/device/stream.hpp"

namespace tierpool {

/// Which stream a handle means: handles are used again when a stream has gone, and that of the per-thread default
/// stream means another one on every thread.
struct StreamKey {
  StreamHandle handle = kDefaultStream;
  std::uint64_t id = 0;  ///< the device's for the stream, or the thread's for its default stream

  /// Whether the handle may be named at any time: the device's own streams are never destroyed.
  [[nodiscard]] bool is_lasting() const noexcept { return handle <= kPerThreadStream; }

  friend bool operator==(const StreamKey&, const StreamKey&) = default;
};

/// What no stream orders: memory that the processor may write as soon as it has it.
inline constexpr StreamKey kHostOrder{UINT64_MAX, UINT64_MAX};

}  // namespace tierpool
