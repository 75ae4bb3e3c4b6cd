#include "tierpool/pool/node_lanes.hpp"

#include <algorithm>

namespace tierpool {

NodeLanes::NodeLanes(std::uint64_t wanted) noexcept {
  constexpr std::uint64_t kStride = std::uint64_t{kLaneCount} * kRunLength;
  const std::uint64_t strides = std::min((wanted + kStride - 1) / kStride, kNoNode / kStride);
  lane_length_ = static_cast<std::uint32_t>(strides * kRunLength);
}

std::uint32_t NodeLanes::take(BlockNodes& nodes, std::uint32_t lane) noexcept {
  ++taken_count_;
  for (lane %= kLaneCount;; lane = (lane + 1) % kLaneCount) {
    Lane& own = lanes_[lane];
    if (own.spare != kNoNode) [[likely]] {
      const std::uint32_t node = own.spare;
      own.spare = nodes[node].next;
      return node;
    }
    if (own.used_length < lane_length_) [[likely]] {
      const std::uint32_t position = own.used_length++;
      return ((position / kRunLength) * kLaneCount + lane) * kRunLength + position % kRunLength;
    }
  }
}

void NodeLanes::give_back(BlockNodes& nodes, std::uint32_t node) noexcept {
  --taken_count_;
  Lane& own = lanes_[node / kRunLength % kLaneCount];
  nodes[node].next = own.spare;
  own.spare = node;
}

}  // namespace tierpool
