#include "tierpool/base/memory_size.hpp"

#include <array>
#include <cstdio>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

std::string with_unit(std::uint64_t bytes, std::uint64_t unit, const char* suffix) {
  const double value = static_cast<double>(bytes) / static_cast<double>(unit);
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.1f", value);
  std::string result(text.data());
  if (result.ends_with(".0")) {
    result.resize(result.size() - 2);
  }
  return result + suffix;
}

}  // namespace

std::string format_memory_size(std::uint64_t bytes) {
  if (bytes < kKiB) {
    return std::to_string(bytes) + "B";
  }
  if (bytes < 100 * kKiB) {
    return with_unit(bytes, kKiB, "KB");
  }
  return with_unit(bytes, kMiB, "MB");
}

}  // namespace tierpool
