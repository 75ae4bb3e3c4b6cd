#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace tierpool {

/// The index of `value` among `choices`. Throws ConfigError naming `what`, the value and the nearest choice.
[[nodiscard]] std::size_t index_of_choice(std::string_view what, std::string_view value,
                                          std::span<const std::string_view> choices);

}  // namespace tierpool
