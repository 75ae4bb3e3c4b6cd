#include "tierpool/arena/residency.hpp"

#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace tierpool {
namespace {

// Whole pages around any range up to here can be named.
constexpr std::uint64_t kAddressLimit = std::numeric_limits<std::uint64_t>::max() / 2;

std::string describe(std::uint64_t address, std::uint64_t bytes) {
  return std::to_string(bytes) + " bytes at address " + std::to_string(address);
}

}  // namespace

bool Residency::insert(std::uint64_t address, std::uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto next = ranges_.lower_bound(address);
  if (next != ranges_.end() && next->first == address && next->second.bytes == bytes) {
    return false;
  }
  const auto refuse = [&](const auto& other) {
    throw std::invalid_argument("cannot register " + describe(address, bytes) + ": it overlaps " +
                                describe(other.first, other.second.bytes) +
                                ", which is registered; register the whole memory once, at its owner");
  };
  if (next != ranges_.end() && next->first - address < bytes) {
    refuse(*next);
  }
  if (next != ranges_.begin() && address - std::prev(next)->first < std::prev(next)->second.bytes) {
    refuse(*std::prev(next));
  }
  ranges_.emplace_hint(next, address, Range{bytes, 0, pins_ != nullptr});
  return true;
}

bool Residency::add(std::uint64_t address, std::uint64_t bytes) {
  if (address == 0 || bytes == 0 || address > kAddressLimit || bytes > kAddressLimit - address) {
    throw std::invalid_argument("cannot register " + describe(address, bytes) + ": no memory can be there");
  }
  if (!insert(address, bytes)) {
    return false;
  }
  if (pins_ == nullptr) {
    return true;
  }
  const PagePins::Token token = pins_->pin(address, bytes);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = ranges_.find(address);
    // Removed meanwhile, and perhaps registered again by somebody whose own pin is on its way: then this one is void.
    if (found != ranges_.end() && found->second.bytes == bytes && found->second.is_pinning) {
      found->second.token = token;
      found->second.is_pinning = false;
      return true;
    }
  }
  if (token != 0) {
    pins_->unpin(address, bytes, token);
  }
  return true;
}

bool Residency::remove(std::uint64_t address, std::uint64_t bytes) noexcept {
  Range range;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = ranges_.find(address);
    if (found == ranges_.end() || found->second.bytes != bytes) {
      return false;
    }
    range = found->second;
    ranges_.erase(found);
  }
  if (range.token != 0) {
    pins_->unpin(address, range.bytes, range.token);
  }
  return true;
}

void Residency::clear() noexcept {
  std::map<std::uint64_t, Range> ranges;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ranges.swap(ranges_);
  }
  for (const auto& [address, range] : ranges) {
    if (range.token != 0) {
      pins_->unpin(address, range.bytes, range.token);
    }
  }
}

std::vector<Registration> Residency::registrations() const {
  std::vector<Registration> all;
  const std::lock_guard<std::mutex> lock(mutex_);
  all.reserve(ranges_.size());
  for (const auto& [address, range] : ranges_) {
    all.push_back({address, range.bytes, is_pinned(range)});
  }
  return all;
}

ResidencyStatistics Residency::statistics() const noexcept {
  ResidencyStatistics statistics;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [address, range] : ranges_) {
    ++statistics.registered_count;
    statistics.registered_bytes += range.bytes;
    statistics.pinned_bytes += is_pinned(range) ? range.bytes : 0;
  }
  return statistics;
}

}  // namespace tierpool
