#include "tierpool/device/simulated_device.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>
#include <string>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

// No processor maps addresses from here on, so that whoever dereferences one faults at once.
constexpr std::uint64_t kFirstAddress = std::uint64_t{1} << 60;
constexpr std::uint64_t kEndAddress = std::uint64_t{1} << 62;

bool overlap(std::uint64_t left, std::uint64_t right, std::uint64_t bytes) noexcept {
  return std::max(left, right) - std::min(left, right) < bytes;
}

}  // namespace

SimulatedDevice::SimulatedDevice(std::uint64_t total_bytes, std::uint64_t granularity_bytes)
    : total_bytes_(total_bytes), granularity_bytes_(granularity_bytes), next_address_(kFirstAddress) {
  if (!is_power_of_two(granularity_bytes)) {
    throw ConfigError("The granularity of a simulated device is a power of two, not " +
                      std::to_string(granularity_bytes));
  }
}

std::uint64_t SimulatedDevice::free_bytes() const {
  const std::lock_guard lock(mutex_);
  return unused_bytes();
}

Reservation SimulatedDevice::reserve(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::string what = "Cannot reserve " + format_memory_size(bytes) + " of simulated addresses: ";
  if (calls_.count_and_fail(DeviceCall::reserve)) {
    throw DeviceError(what + "failure on demand");
  }
  if (bytes == 0) {
    throw DeviceError(what + "a reservation holds at least one byte");
  }
  const bool fits = bytes <= std::numeric_limits<std::uint64_t>::max() - granularity_bytes_;
  const std::uint64_t rounded_bytes = fits ? align_up(bytes, granularity_bytes_) : 0;
  const std::uint64_t address = fits ? take_addresses(rounded_bytes, granularity_bytes_) : 0;
  if (address == 0) {
    throw DeviceError(what + "no range of that size is left");
  }
  reserved_[address].bytes = rounded_bytes;
  return {.address = address, .bytes = rounded_bytes};
}

bool SimulatedDevice::commit(std::uint64_t address, std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(DeviceCall::commit)) {
    return false;
  }
  ReservedRange* range = find_granules(address, bytes);
  if (range == nullptr) {
    ++misuse_count_;
    return false;
  }
  try {
    return commit_granules(*range, address, bytes);
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool SimulatedDevice::decommit(std::uint64_t address, std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(DeviceCall::decommit)) {
    return false;
  }
  ReservedRange* range = find_granules(address, bytes);
  if (range == nullptr) {
    ++misuse_count_;
    return false;
  }
  committed_bytes_ -= committed_bytes_in(*range, address, bytes);
  std::set<std::uint64_t>& granules = range->committed_granules;
  granules.erase(granules.lower_bound(address), granules.lower_bound(address + bytes));
  return true;
}

void SimulatedDevice::release(const Reservation& reservation) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = reserved_.find(reservation.address);
  if (found == reserved_.end() || found->second.bytes != reservation.bytes) {
    ++misuse_count_;
    return;
  }
  committed_bytes_ -= found->second.committed_granules.size() * granularity_bytes_;
  reserved_.erase(found);
}

DirectAllocation SimulatedDevice::allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(DeviceCall::allocate_direct)) {
    return {};
  }
  if (!is_power_of_two(alignment) || alignment > max_alignment_bytes()) {
    ++misuse_count_;
    return {};
  }
  const std::uint64_t counted_bytes = std::max<std::uint64_t>(bytes, 1);
  const std::uint64_t address = counted_bytes <= unused_bytes() ? take_addresses(counted_bytes, alignment) : 0;
  if (address == 0) {
    return {};
  }
  try {
    direct_[address] = {.bytes = counted_bytes, .alignment = alignment};
  } catch (const std::bad_alloc&) {
    return {};
  }
  direct_bytes_ += counted_bytes;
  return {.address = address, .zeroed = true};
}

void SimulatedDevice::free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const std::lock_guard lock(mutex_);
  const std::uint64_t counted_bytes = std::max<std::uint64_t>(bytes, 1);
  const auto found = direct_.find(address);
  if (found == direct_.end() || found->second.bytes != counted_bytes || found->second.alignment != alignment) {
    ++misuse_count_;
    return;
  }
  direct_bytes_ -= counted_bytes;
  direct_.erase(found);
}

void SimulatedDevice::copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(DeviceCall::copy)) {
    throw DeviceError("Cannot copy " + format_memory_size(bytes) + " of simulated memory: failure on demand");
  }
  if (!is_readable(destination, bytes) || !is_readable(source, bytes) || overlap(destination, source, bytes)) {
    ++misuse_count_;
    throw DeviceError("Cannot copy " + format_memory_size(bytes) +
                      " of simulated memory: the ranges overlap, or are not committed");
  }
}

void SimulatedDevice::use(std::uint64_t address, std::uint64_t bytes) noexcept {
  if (address < kFirstAddress) {
    return;  // memory of the host
  }
  const std::lock_guard lock(mutex_);
  misuse_count_ += is_readable(address, bytes) ? 0 : 1;
}

void SimulatedDevice::fail(DeviceCall call, std::uint64_t after, std::uint64_t times) {
  const std::lock_guard lock(mutex_);
  calls_.fail(call, after, times);
}

void SimulatedDevice::recover() {
  const std::lock_guard lock(mutex_);
  calls_.recover();
}

std::uint64_t SimulatedDevice::reserved_bytes() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& [address, range] : reserved_) {
    bytes += range.bytes;
  }
  return bytes;
}

std::uint64_t SimulatedDevice::committed_bytes() const {
  const std::lock_guard lock(mutex_);
  return committed_bytes_;
}

std::uint64_t SimulatedDevice::direct_bytes() const {
  const std::lock_guard lock(mutex_);
  return direct_bytes_;
}

std::uint64_t SimulatedDevice::call_count(DeviceCall call) const {
  const std::lock_guard lock(mutex_);
  return calls_.count(call);
}

std::uint64_t SimulatedDevice::misuse_count() const {
  const std::lock_guard lock(mutex_);
  return misuse_count_;
}

/// Addresses that were never handed out before, so that a stale one is always caught; 0 when none are left.
std::uint64_t SimulatedDevice::take_addresses(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const std::uint64_t room = kEndAddress - next_address_;
  if (room < 2 * alignment || bytes > room - 2 * alignment) {
    return 0;
  }
  const std::uint64_t address = align_up(next_address_, alignment);
  next_address_ = address + bytes + alignment;  // a gap, so that running over the end is caught as well
  return address;
}

SimulatedDevice::ReservedRange* SimulatedDevice::find_reserved(std::uint64_t address, std::uint64_t bytes) noexcept {
  const auto after = reserved_.upper_bound(address);
  if (after == reserved_.begin()) {
    return nullptr;
  }
  auto& [start, range] = *std::prev(after);
  const std::uint64_t offset = address - start;
  return offset <= range.bytes && bytes <= range.bytes - offset ? &range : nullptr;
}

SimulatedDevice::ReservedRange* SimulatedDevice::find_granules(std::uint64_t address, std::uint64_t bytes) noexcept {
  const bool whole = ((address | bytes) & (granularity_bytes_ - 1)) == 0;
  return whole ? find_reserved(address, bytes) : nullptr;
}

std::uint64_t SimulatedDevice::committed_bytes_in(const ReservedRange& range, std::uint64_t address,
                                                  std::uint64_t bytes) const noexcept {
  const std::set<std::uint64_t>& granules = range.committed_granules;
  const auto count = std::distance(granules.lower_bound(address), granules.lower_bound(address + bytes));
  return static_cast<std::uint64_t>(count) * granularity_bytes_;
}

bool SimulatedDevice::commit_granules(ReservedRange& range, std::uint64_t address, std::uint64_t bytes) {
  if (bytes - committed_bytes_in(range, address, bytes) > unused_bytes()) {
    return false;
  }
  std::set<std::uint64_t>& granules = range.committed_granules;
  const auto position = granules.lower_bound(address + bytes);
  for (std::uint64_t granule = address; granule < address + bytes; granule += granularity_bytes_) {
    if (!granules.contains(granule)) {
      granules.insert(position, granule);
      committed_bytes_ += granularity_bytes_;
    }
  }
  return true;
}

bool SimulatedDevice::is_readable(std::uint64_t address, std::uint64_t bytes) noexcept {
  const auto after = direct_.upper_bound(address);
  if (after != direct_.begin()) {
    const auto& [start, range] = *std::prev(after);
    if (address - start <= range.bytes && bytes <= range.bytes - (address - start)) {
      return true;
    }
  }
  const ReservedRange* range = find_reserved(address, bytes);
  if (range == nullptr) {
    return false;
  }
  const std::uint64_t first = align_down(address, granularity_bytes_);
  const std::uint64_t end = align_up(address + bytes, granularity_bytes_);
  return committed_bytes_in(*range, first, end - first) == end - first;
}

}  // namespace tierpool
