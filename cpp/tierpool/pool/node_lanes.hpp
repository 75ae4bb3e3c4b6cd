#pragma once

#include <array>
#include <cstdint>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

/// Hands out node indices and takes them back. Each lane has runs of indices of its own, so that threads that take from
/// different lanes write what belongs to their nodes (generations above all) into different cache lines. Not
/// thread-safe.
class NodeLanes {
 public:
  static constexpr std::uint32_t kLaneCount = 8;
  static constexpr std::uint32_t kRunLength = 1024;

  /// As many indices as `wanted`, or as many as 32 bits have.
  explicit NodeLanes(std::uint64_t wanted) noexcept;

  /// Every index is below.
  [[nodiscard]] std::uint64_t size() const noexcept { return std::uint64_t{lane_length_} * kLaneCount; }
  /// How many more indices there are.
  [[nodiscard]] std::uint64_t free_count() const noexcept { return size() - taken_count_; }

  /// An index of the lane, or of another one when that has none left. One must be free.
  [[nodiscard]] std::uint32_t take(BlockNodes& nodes, std::uint32_t lane) noexcept;
  void give_back(BlockNodes& nodes, std::uint32_t node) noexcept;

 private:
  struct Lane {
    std::uint32_t spare = kNoNode;  // indices given back, linked by `next`
    std::uint32_t used_length = 0;
  };

  std::array<Lane, kLaneCount> lanes_;
  std::uint32_t lane_length_;
  std::uint64_t taken_count_ = 0;
};

}  // namespace tierpool
