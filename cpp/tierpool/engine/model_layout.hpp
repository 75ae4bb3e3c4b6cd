#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tierpool/storage/extent.hpp"
#include "tierpool/storage/mapping_count.hpp"
#include "tierpool/storage/unit_layout.hpp"

namespace tierpool {

/// A tensor and its bytes in a file; with experts, they lie one behind the other in it.
struct TensorBytes {
  std::string name;
  Extent extent;
};

struct LayerBytes {
  std::uint32_t number = 0;  ///< in the names of the graph's nodes
  std::vector<TensorBytes> tensors;
};

/// Unit `layer * experts + expert`: that expert's part of each of the layer's tensors; without experts, a unit for each
/// layer. `resident` are the bytes of all other tensors. Throws ConfigError for a tensor that is not equal parts.
[[nodiscard]] UnitLayout lay_out_model(std::span<const LayerBytes> layers, std::span<const Extent> resident,
                                       std::uint32_t experts, std::uint64_t page_bytes);

/// What streaming that model takes of mappings when its files, by file index, are mapped as a whole.
[[nodiscard]] MappingCount count_mappings(std::span<const LayerBytes> layers, std::span<const Extent> resident,
                                          std::uint32_t experts, std::span<const std::uint64_t> file_bytes);

}  // namespace tierpool
