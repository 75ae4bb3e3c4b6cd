#pragma once

#include <cstdint>
#include <string>

namespace tierpool {

/// Bytes as whole or one-decimal mebibytes for messages: "512MB", "1.5MB"; below 0.1 MiB "712B" or "48KB".
[[nodiscard]] std::string format_memory_size(std::uint64_t bytes);

}  // namespace tierpool
