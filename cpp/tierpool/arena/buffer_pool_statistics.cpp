#include "tierpool/arena/buffer_pool_statistics.hpp"

namespace tierpool {
namespace {

double ratio(std::uint64_t part, std::uint64_t whole) noexcept {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double BufferPoolStatistics::waste_ratio() const noexcept { return ratio(waste_bytes(), requested_bytes); }

double BufferPoolStatistics::reuse_rate() const noexcept { return ratio(reused, leases()); }

}  // namespace tierpool
