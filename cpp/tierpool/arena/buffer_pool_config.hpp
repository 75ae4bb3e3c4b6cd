#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tierpool/arena/size_classes.hpp"
#include "tierpool/device/device.hpp"

namespace tierpool {

/// What a buffer contains when it is handed out. All but `never` need memory that the processor can reach.
enum class ZeroPolicy {
  never,   ///< whatever was there
  fresh,   ///< zero the first time, whatever was there afterwards
  always,  ///< zero
  poison,  ///< kPoisonByte throughout, so that a read of what nobody wrote is seen
};

inline constexpr std::uint8_t kPoisonByte = 0xCB;

[[nodiscard]] std::string_view to_string(ZeroPolicy zero) noexcept;
/// Throws ConfigError naming the nearest known choice.
[[nodiscard]] ZeroPolicy parse_zero_policy(std::string_view name);

/// Everything a buffer pool is built from; the only place with the defaults.
struct BufferPoolConfig {
  SizeClasses size_classes = SizeClasses::eighths;
  std::optional<std::uint64_t> max_bytes;    ///< hard limit on class bytes held, free buffers included
  std::optional<std::uint64_t> max_buffers;  ///< hard limit on buffers held, free ones included
  ZeroPolicy zero = ZeroPolicy::never;
  /// Whether release and reset refuse while views are live. Without it memory is handed out again under them.
  bool checked = true;
  bool track_origins = false;
  bool pin_registered = true;  ///< whether registered memory is locked into RAM

  /// Throws ConfigError naming the key, the value and what would work.
  void validate(const Device& device) const;
};

}  // namespace tierpool
