#pragma once

#include <span>
#include <string_view>

namespace tierpool {

/// The candidate with the fewest edits (insertions, deletions, replacements; letter case is free) from `value`, the
/// first of equals; empty when there are no candidates. For messages about a name that is not known. Thread-safe.
[[nodiscard]] std::string_view nearest_name(std::string_view value, std::span<const std::string_view> candidates);

}  // namespace tierpool
