#include "tierpool/engine/model_layout.hpp"

#include <unistd.h>

#include <algorithm>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

std::vector<Extent> parts_of(const TensorBytes& tensor, std::uint32_t count) {
  if (tensor.extent.size_bytes % count != 0) {
    throw ConfigError(tensor.name + " has " + std::to_string(tensor.extent.size_bytes) + " bytes, which are not " +
                      std::to_string(count) + " equal parts");
  }
  std::vector<Extent> parts(count, tensor.extent);
  for (std::uint32_t i = 0; i < count; ++i) {
    parts[i].size_bytes = tensor.extent.size_bytes / count;
    parts[i].offset_bytes += i * parts[i].size_bytes;
  }
  return parts;
}

}  // namespace

UnitLayout lay_out_model(std::span<const LayerBytes> layers, std::span<const Extent> resident, std::uint32_t experts,
                         std::uint64_t page_bytes) {
  const std::uint32_t count = std::max(experts, 1U);
  std::vector<std::vector<Extent>> units(layers.size() * count);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    for (const TensorBytes& tensor : layers[layer].tensors) {
      const std::vector<Extent> parts = parts_of(tensor, count);
      for (std::uint32_t part = 0; part < count; ++part) {
        units[layer * count + part].push_back(parts[part]);
      }
    }
  }
  return lay_out_units(units, resident, page_bytes);
}

MappingCount count_mappings(std::span<const LayerBytes> layers, std::span<const Extent> resident, std::uint32_t experts,
                            std::span<const std::uint64_t> file_bytes) {
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const UnitLayout layout = lay_out_model(layers, resident, experts, page_bytes);
  std::vector<Extent> files;
  for (const std::uint64_t bytes : file_bytes) {
    files.push_back({static_cast<std::uint32_t>(files.size()), 0, align_up(bytes, page_bytes)});
  }
  return {UnitTable(layout.units, page_bytes), layout.copies(), files};
}

}  // namespace tierpool
