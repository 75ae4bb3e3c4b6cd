#include "tierpool/device/pinned_host_device.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPageBytes = 4 * kKiB;          // at least, and what memory of the driver is aligned to
constexpr std::uint64_t kMappedDirectBytes = 2 * kMiB;  // from here on our own pages are faster than the driver's
constexpr unsigned kRegisterFlags = kCuHostPortable | kCuHostMapped;

std::string name_of(int index, bool write_combined) {
  const std::string kind = write_combined ? "pinned-write-combined" : "pinned";
  return index == 0 ? kind : kind + ":" + std::to_string(index);
}

}  // namespace

PinnedHostDevice::PinnedHostDevice(int index, const PinnedHostDeviceOptions& options, CudaDriver& driver)
    : context_(driver, index), write_combined_(options.write_combined), name_(name_of(index, options.write_combined)) {}

std::uint64_t PinnedHostDevice::granularity_bytes() const noexcept {
  return write_combined_ ? kPageBytes : host_.granularity_bytes();
}

bool PinnedHostDevice::fail(std::string_view what, CuResult result) noexcept {
  if (result == kCuOutOfMemory) {
    fault_.note([] { return std::string(); });
  } else {
    fault_.note([&] { return name_ + ": " + context_.driver().describe(what, result); });
  }
  return false;
}

Reservation PinnedHostDevice::reserve(std::uint64_t bytes) {
  const Reservation reservation = take(bytes);
  try {
    auto range =
        std::make_unique<Range>(reservation.address, write_combined_ ? 0 : reservation.bytes / granularity_bytes());
    const std::lock_guard lock(mutex_);
    ranges_.emplace(reservation.address, std::move(range));
  } catch (const std::bad_alloc&) {
    give_back(reservation);
    throw;
  }
  return reservation;
}

Reservation PinnedHostDevice::take(std::uint64_t bytes) {
  if (!write_combined_) {
    return host_.reserve(bytes);
  }
  const std::string what = "Cannot reserve " + format_memory_size(bytes) + " of write-combined memory";
  if (bytes == 0 || bytes > std::numeric_limits<std::uint64_t>::max() - kPageBytes) {
    throw DeviceError(what + ": a reservation holds at least one byte, and less than there are addresses");
  }
  const std::uint64_t rounded_bytes = align_up(bytes, kPageBytes);
  const CudaContext::Scope scope(context_);
  void* pointer = nullptr;
  const CuResult result =
      scope ? call().mem_host_alloc(&pointer, rounded_bytes, kRegisterFlags | kCuHostWriteCombined) : scope.result();
  if (result != kCuSuccess) {
    context_.raise(what, "cuMemHostAlloc", result);
  }
  return {.address = address_of(pointer), .bytes = rounded_bytes};
}

void PinnedHostDevice::give_back(const Reservation& reservation) noexcept {
  if (!write_combined_) {
    host_.release(reservation);
    return;
  }
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? call().mem_free_host(pointer_at(reservation.address)) : scope.result();
  if (result != kCuSuccess) {
    context_.log_failure("Could not give back " + format_memory_size(reservation.bytes), "cuMemFreeHost", result);
  }
}

PinnedHostDevice::Range* PinnedHostDevice::find(std::uint64_t address, std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) {
    return nullptr;
  }
  Range& range = *std::prev(after)->second;
  const std::uint64_t range_bytes = range.chunks.count() * granularity_bytes();
  const std::uint64_t offset = address - range.address;
  return write_combined_ || (offset <= range_bytes && bytes <= range_bytes - offset) ? &range : nullptr;
}

bool PinnedHostDevice::commit(std::uint64_t address, std::uint64_t bytes) noexcept {
  const CudaContext::Scope scope(context_);
  if (!scope) {
    return fail("the context", scope.result());
  }
  Range* range = find(address, bytes);
  if (range == nullptr || write_combined_) {
    return range != nullptr;
  }
  const std::uint64_t begin = (address - range->address) / granularity_bytes();
  const std::uint64_t end = begin + bytes / granularity_bytes();
  const std::lock_guard lock(range->mutex);
  if (range->chunks.find_missing(begin, end) && !pin(*range)) {
    return false;
  }
  range->chunks.set_used(begin, end, true);
  return true;
}

bool PinnedHostDevice::pin(Range& range) noexcept {
  const std::uint64_t bytes = range.chunks.count() * granularity_bytes();
  // Pages that are there already, and huge, the driver pins in a fraction of the time.
  if (!host_.commit(range.address, bytes)) {
    static_cast<void>(host_.decommit(range.address, bytes));
    return false;
  }
  const CuResult result = call().mem_host_register(pointer_at(range.address), bytes, kRegisterFlags);
  if (result != kCuSuccess) {
    static_cast<void>(host_.decommit(range.address, bytes));
    return fail("cuMemHostRegister", result);
  }
  range.chunks.add_chunk({.first = 0, .count = range.chunks.count()});
  return true;
}

AddressRange PinnedHostDevice::decommittable(std::uint64_t address, std::uint64_t bytes) noexcept {
  const Range* range = find(address, bytes);
  const bool is_whole = range == nullptr || write_combined_ || bytes == range->chunks.count() * granularity_bytes();
  return {.address = address, .bytes = is_whole ? bytes : 0};
}

bool PinnedHostDevice::decommit(std::uint64_t address, std::uint64_t bytes) noexcept {
  if (bytes == 0) {
    return true;
  }
  const CudaContext::Scope scope(context_);
  if (!scope) {
    return fail("the context", scope.result());
  }
  Range* range = find(address, bytes);
  if (range == nullptr || write_combined_) {
    return false;
  }
  const std::uint64_t begin = (address - range->address) / granularity_bytes();
  const std::uint64_t end = begin + bytes / granularity_bytes();
  const std::lock_guard lock(range->mutex);
  range->chunks.set_used(begin, end, false);
  if (!unpin_unused(*range)) {
    range->chunks.set_used(begin, end, true);
    return false;
  }
  return true;
}

bool PinnedHostDevice::unpin_unused(Range& range) noexcept {
  const GranuleChunks::Run unused = range.chunks.find_unused(0, range.chunks.count());
  if (!unused) {
    return true;
  }
  if (const CuResult result = call().mem_host_unregister(pointer_at(range.address)); result != kCuSuccess) {
    return fail("cuMemHostUnregister", result);
  }
  range.chunks.remove_chunk(unused);
  if (!host_.decommit(range.address, unused.count * granularity_bytes())) {
    fault_.note([&] { return name_ + ": the system kept pages that were given back"; });
  }
  return true;
}

void PinnedHostDevice::release(const Reservation& reservation) noexcept {
  std::unique_ptr<Range> range;
  const CudaContext::Scope scope(context_);
  if (scope || context_.driver().is_usable()) {
    const std::lock_guard lock(mutex_);
    const auto found = ranges_.find(reservation.address);
    if (found == ranges_.end()) {
      return;
    }
    range = std::move(found->second);
    ranges_.erase(found);
  }
  if (scope && !write_combined_) {
    range->chunks.set_used(0, range->chunks.count(), false);
    static_cast<void>(unpin_unused(*range));  // the driver forgets it with its pages
  }
  // Also in a forked child: the pages are its own copy, of which the driver knows nothing.
  give_back(reservation);
}

bool PinnedHostDevice::is_mapped(std::uint64_t bytes, std::uint64_t alignment) const noexcept {
  return !write_combined_ && (bytes >= kMappedDirectBytes || alignment > kPageBytes);
}

DirectAllocation PinnedHostDevice::allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const CudaContext::Scope scope(context_);
  if (!scope) {
    static_cast<void>(fail("the context", scope.result()));
    return {};
  }
  if (is_mapped(bytes, alignment)) {
    const std::uint64_t address = map_direct(std::max<std::uint64_t>(bytes, 1));
    return {.address = address, .zeroed = address != 0};
  }
  void* pointer = nullptr;
  const unsigned flags = kRegisterFlags | (write_combined_ ? kCuHostWriteCombined : 0);
  const CuResult result = call().mem_host_alloc(&pointer, std::max<std::uint64_t>(bytes, 1), flags);
  if (result != kCuSuccess) {
    static_cast<void>(fail("cuMemHostAlloc", result));
    return {};
  }
  return {.address = address_of(pointer), .zeroed = false};
}

std::uint64_t PinnedHostDevice::map_direct(std::uint64_t bytes) noexcept {
  Reservation reservation;
  try {
    reservation = host_.reserve(bytes);
  } catch (const std::exception&) {
    return 0;
  }
  // Addresses come in granules, memory in pages.
  const std::uint64_t page_bytes = align_up(bytes, kPageBytes);
  const bool committed = page_bytes <= free_bytes() && host_.commit(reservation.address, page_bytes);
  const CuResult result = committed
                              ? call().mem_host_register(pointer_at(reservation.address), page_bytes, kRegisterFlags)
                              : kCuOutOfMemory;
  if (result != kCuSuccess) {
    static_cast<void>(fail("cuMemHostRegister", result));
    host_.release(reservation);
    return 0;
  }
  return reservation.address;
}

void PinnedHostDevice::free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept {
  const CudaContext::Scope scope(context_);
  const bool mapped = is_mapped(bytes, alignment);
  void* pointer = pointer_at(address);
  CuResult result = scope.result();
  if (scope) {
    result = mapped ? call().mem_host_unregister(pointer) : call().mem_free_host(pointer);
  }
  if (result != kCuSuccess) {
    context_.log_failure("Could not give back " + format_memory_size(bytes), "the driver", result);
  }
  if (mapped) {
    const std::uint64_t mapped_bytes = align_up(std::max<std::uint64_t>(bytes, 1), host_.granularity_bytes());
    host_.release({.address = address, .bytes = mapped_bytes});
  }
}

void PinnedHostDevice::copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) {
  host_.copy(destination, source, bytes);
}

}  // namespace tierpool
