#include "tierpool/pool/magazine.hpp"

#include <algorithm>
#include <new>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

// A refill takes blocks in advance only where they are small: large ones are few, and the strategy should place each.
constexpr std::uint64_t kMaxRefillBytes = 64 * kKiB;

}  // namespace

bool Magazine::grow(std::uint32_t place_count) noexcept {
  if (place_count > capacity_) {
    auto* grown = new (std::nothrow) ParkedBlock[place_count];
    if (grown == nullptr) {
      return false;
    }
    top_ = std::copy(begin_, top_, grown);
    delete[] begin_;
    begin_ = grown;
    end_ = grown;
    capacity_ = place_count;
  }
  end_ = std::max(end_, begin_ + place_count);
  return true;
}

void Magazine::shrink(std::uint32_t count) noexcept {
  top_ = end_ = std::copy(begin_ + count, top_, begin_);
  refill_count_ = 1;
}

std::uint32_t Magazine::next_refill_count() noexcept {
  const std::uint32_t count = refill_count_;
  const std::uint64_t most = std::max<std::uint64_t>(kMaxRefillBytes / block_bytes_, 1);
  refill_count_ = static_cast<std::uint32_t>(std::min(most, std::uint64_t{2} * count));
  return count;
}

}  // namespace tierpool
