#include "tierpool/base/choice.hpp"

#include <algorithm>
#include <string>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/nearest_name.hpp"

namespace tierpool {

std::size_t index_of_choice(std::string_view what, std::string_view value, std::span<const std::string_view> choices) {
  const auto found = std::find(choices.begin(), choices.end(), value);
  if (found != choices.end()) {
    return static_cast<std::size_t>(found - choices.begin());
  }
  std::string known;
  for (const std::string_view choice : choices) {
    known += (known.empty() ? "'" : ", '") + std::string(choice) + "'";
  }
  throw ConfigError("unknown " + std::string(what) + " '" + std::string(value) + "': did you mean '" +
                    std::string(nearest_name(value, choices)) + "'? Known: " + known);
}

}  // namespace tierpool
