#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/block_allocator.hpp"
#include "tierpool/pool/heap_selection.hpp"

namespace tierpool {

/// What happens when no heap can serve a request.
enum class OnExhaustion {
  fallback,  ///< the device serves it directly
  raise,     ///< the request fails
};

[[nodiscard]] std::string_view to_string(OnExhaustion on_exhaustion) noexcept;
/// Throws ConfigError naming the nearest known choice.
[[nodiscard]] OnExhaustion parse_on_exhaustion(std::string_view name);

/// Everything a pool is built from. The Python layer documents the keys; this is the only place with the defaults.
struct PoolConfig {
  bool enabled = true;  ///< false: no heaps, every allocation a fallback
  std::uint64_t heap_size_bytes = 256 * kMiB;
  std::uint32_t num_heaps = 4;
  std::vector<std::uint64_t> warmup_bytes = {32 * kMiB, 128 * kMiB, 512 * kMiB};
  bool warmup_is_default = true;  ///< sizes that fit no heap are then noted at INFO, not at WARNING
  bool track_statistics = true;
  bool log_exhaustion = true;
  bool track_origins = false;
  Strategy strategy = Strategy::round_robin;
  Placement placement = Placement::good_fit;
  OnExhaustion on_exhaustion = OnExhaustion::fallback;
  bool magazines = true;                               ///< per-thread stacks of freed blocks in front of the heaps
  std::uint64_t exact_above_bytes = 1 * kMiB;          ///< requests above are never rounded up to a size class
  std::optional<std::uint64_t> magazine_thread_bytes;  ///< parked by one thread; as much as by all if not set
  std::optional<std::uint64_t> magazine_total_bytes;   ///< parked by all threads; all of the heaps if not set
  std::optional<std::uint64_t> max_bytes;              ///< hard limit over heaps and fallbacks together

  /// Throws ConfigError naming the key, the value and the limit.
  void validate(const Device& device) const;
};

}  // namespace tierpool
