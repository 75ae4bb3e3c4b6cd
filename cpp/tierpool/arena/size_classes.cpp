#include "tierpool/arena/size_classes.hpp"

#include <array>

#include "tierpool/base/choice.hpp"

namespace tierpool {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"eighths", "power-of-two", "exact"};

static_assert(eighths_class(kMaxRequestBytes).index < kNumberedClasses);
static_assert(power_of_two_class(kMaxRequestBytes).index < kNumberedClasses);

}  // namespace

std::string_view to_string(SizeClasses size_classes) noexcept { return kNames[static_cast<std::size_t>(size_classes)]; }

SizeClasses parse_size_classes(std::string_view name) {
  return static_cast<SizeClasses>(index_of_choice("size_classes", name, kNames));
}

}  // namespace tierpool
