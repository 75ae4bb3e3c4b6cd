#include "tierpool/arena/buffer_pool_config.hpp"

#include <array>
#include <string>

#include "tierpool/base/choice.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 4> kZeroNames = {"never", "fresh", "always", "poison"};

void check_limit(const char* key, const std::optional<std::uint64_t>& limit) {
  if (limit == std::uint64_t{0}) {
    throw ConfigError(std::string(key) + " must be at least 1, got 0; leave it out for no limit");
  }
}

}  // namespace

std::string_view to_string(ZeroPolicy zero) noexcept { return kZeroNames[static_cast<std::size_t>(zero)]; }

ZeroPolicy parse_zero_policy(std::string_view name) {
  return static_cast<ZeroPolicy>(index_of_choice("zero", name, kZeroNames));
}

void BufferPoolConfig::validate(const Device& device) const {
  check_limit("max_bytes", max_bytes);
  check_limit("max_buffers", max_buffers);
  if (zero != ZeroPolicy::never && !device.host_accessible()) {
    throw ConfigError("zero is '" + std::string(to_string(zero)) +
                      "', but the processor cannot write to memory of device '" + device.name() +
                      "'; use zero='never'");
  }
}

}  // namespace tierpool
