#include "tierpool/device/cuda_device.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kDriverAlignmentBytes = 256;  // what plain memory of the driver always has
// Each piece costs the driver the same, about 12 us on an H200. So many keep a commit below a millisecond or so; what
// is left in use of it holds a 64th with each granule, if it lies badly.
constexpr std::uint64_t kChunksPerCommit = 64;

CuMemoryProperties properties_of(CuDevice device) noexcept {
  CuMemoryProperties properties;
  properties.location.id = device;
  return properties;
}

/// The device itself, and those that reach its memory: what the driver allocates they could use as well.
std::vector<CuMemoryAccess> accesses_to(CuDevice device, const CudaDriver& driver) {
  std::vector<CuMemoryAccess> accesses(1);
  accesses.front().location.id = device;
  for (int index = 0; index < driver.device_count(); ++index) {
    CuDevice peer = 0;
    int can = 0;
    if (driver.functions().device_get(&peer, index) == kCuSuccess && peer != device &&
        driver.functions().device_can_access_peer(&can, peer, device) == kCuSuccess && can != 0) {
      accesses.emplace_back().location.id = peer;
    }
  }
  return accesses;
}

}  // namespace

CudaDevice::CudaDevice(int index, const CudaDeviceOptions& options, CudaDriver& driver)
    : context_(driver, index), name_("cuda:" + std::to_string(index)) {
  std::size_t total_bytes = 0;
  if (const CuResult result = call().device_total_mem(&total_bytes, context_.device()); result != kCuSuccess) {
    context_.raise("Cannot tell the memory", "cuDeviceTotalMem", result);
  }
  total_bytes_ = total_bytes;
  int supported = 0;
  std::size_t granularity_bytes = 0;
  const CuMemoryProperties properties = properties_of(context_.device());
  virtual_memory_ =
      options.virtual_memory &&
      call().device_get_attribute(&supported, kCuAttributeVirtualMemory, context_.device()) == kCuSuccess &&
      supported != 0 &&
      call().mem_get_allocation_granularity(&granularity_bytes, &properties, kCuMinimumGranularity) == kCuSuccess &&
      is_power_of_two(granularity_bytes);
  granularity_bytes_ = virtual_memory_ ? granularity_bytes : granularity_bytes_;
  if (options.chunk_bytes == 0 || options.chunk_bytes % granularity_bytes_ != 0) {
    throw ConfigError("chunk_bytes of device " + name_ + " is a multiple of its granule of " +
                      std::to_string(granularity_bytes_) + " bytes, not " + std::to_string(options.chunk_bytes));
  }
  most_chunk_granules_ = options.chunk_bytes / granularity_bytes_;
  accesses_ = accesses_to(context_.device(), driver);
}

std::uint64_t CudaDevice::free_bytes() const {
  const CudaContext::Scope scope(context_);
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  const CuResult result = scope ? call().mem_get_info(&free_bytes, &total_bytes) : scope.result();
  if (result != kCuSuccess) {
    context_.raise("Cannot tell the free memory", "cuMemGetInfo", result);
  }
  return std::min<std::uint64_t>(free_bytes, total_bytes_);
}

Reservation CudaDevice::reserve(std::uint64_t bytes) {
  const std::string what = "Cannot reserve " + format_memory_size(bytes);
  if (bytes == 0) {
    throw DeviceError(what + " on " + name_ + ": a reservation holds at least one byte");
  }
  if (bytes > std::numeric_limits<std::uint64_t>::max() - granularity_bytes_) {
    throw DeviceError(what + " on " + name_ + ": no device has so many addresses");
  }
  const std::uint64_t rounded_bytes = align_up(bytes, granularity_bytes_);
  auto range = std::make_unique<Range>(0, 0);
  std::uint64_t address = 0;
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? take_addresses(rounded_bytes, address) : scope.result();
  if (result != kCuSuccess) {
    context_.raise(what, virtual_memory_ ? "cuMemAddressReserve" : "cuMemAlloc", result);
  }
  try {
    range = std::make_unique<Range>(address, rounded_bytes / granularity_bytes_);
    const std::lock_guard lock(mutex_);
    ranges_.emplace(address, std::move(range));
  } catch (const std::bad_alloc&) {
    static_cast<void>(virtual_memory_ ? call().mem_address_free(address, rounded_bytes) : deallocate(address));
    throw;
  }
  return {.address = address, .bytes = rounded_bytes};
}

CuResult CudaDevice::take_addresses(std::uint64_t bytes, std::uint64_t& address) noexcept {
  if (!virtual_memory_) {
    return allocate(bytes, granularity_bytes_, address);
  }
  CuAddress reserved = 0;
  const CuResult result = call().mem_address_reserve(&reserved, bytes, granularity_bytes_, 0, 0);
  address = reserved;
  return result;
}

CuResult CudaDevice::allocate(std::uint64_t bytes, std::uint64_t alignment, std::uint64_t& address) noexcept {
  CuAddress base = 0;
  CuResult result = call().mem_alloc(&base, bytes);
  if (result != kCuSuccess || base % alignment == 0) {
    address = base;
    return result;
  }
  // Large allocations are aligned as they come; only a small one with a wish of its own takes more than it needs.
  static_cast<void>(call().mem_free(base));
  result = call().mem_alloc(&base, bytes + alignment - kDriverAlignmentBytes);
  if (result != kCuSuccess) {
    return result;
  }
  address = align_up(base, alignment);
  try {
    const std::lock_guard lock(mutex_);
    bases_.emplace(address, base);
  } catch (const std::bad_alloc&) {
    static_cast<void>(call().mem_free(base));
    return kCuOutOfMemory;
  }
  return kCuSuccess;
}

CuResult CudaDevice::deallocate(std::uint64_t address) noexcept {
  CuAddress base = address;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = bases_.find(address); found != bases_.end()) {
      base = found->second;
      bases_.erase(found);
    }
  }
  return call().mem_free(base);
}

CudaDevice::Range* CudaDevice::find(std::uint64_t address, std::uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) {
    return nullptr;
  }
  Range& range = *std::prev(after)->second;
  const std::uint64_t range_bytes = range.chunks.count() * granularity_bytes_;
  const std::uint64_t offset = address - range.address;
  return offset <= range_bytes && bytes <= range_bytes - offset ? &range : nullptr;
}

bool CudaDevice::fail(std::string_view what, CuResult result) noexcept {
  if (result == kCuOutOfMemory) {
    fault_.note([] { return std::string(); });
  } else {
    fault_.note([&] { return name_ + ": " + context_.driver().describe(what, result); });
  }
  return false;
}

bool CudaDevice::commit(std::uint64_t address, std::uint64_t bytes) noexcept {
  const CudaContext::Scope scope(context_);
  if (!scope) {
    return fail("the context", scope.result());
  }
  Range* range = find(address, bytes);
  if (range == nullptr) {
    return false;
  }
  if (!virtual_memory_) {
    return true;
  }
  const std::uint64_t begin = (address - range->address) / granularity_bytes_;
  const std::uint64_t end = begin + bytes / granularity_bytes_;
  const std::lock_guard lock(range->mutex);
  GranuleChunks& chunks = range->chunks;
  for (auto run = chunks.find_missing(begin, end); run; run = chunks.find_missing(run.end(), end)) {
    if (!map(*range, run)) {
      return false;
    }
  }
  chunks.set_used(begin, end, true);
  return true;
}

std::uint64_t CudaDevice::chunk_granules(const GranuleChunks::Run& run) const noexcept {
  return std::clamp<std::uint64_t>(run.count / kChunksPerCommit, 1, most_chunk_granules_);
}

bool CudaDevice::map(Range& range, const GranuleChunks::Run& run) noexcept {
  const std::uint64_t granules = chunk_granules(run);
  const std::uint64_t first_address = range.address + run.first * granularity_bytes_;
  CuResult result = kCuSuccess;
  std::string_view what = "cuMemCreate";
  for (std::uint64_t first = run.first; first < run.end() && result == kCuSuccess; first += granules) {
    const GranuleChunks::Run chunk{.first = first, .count = std::min(granules, run.end() - first)};
    result = map_chunk(range.address + first * granularity_bytes_, chunk.count * granularity_bytes_);
    if (result == kCuSuccess) {
      range.chunks.add_chunk(chunk);
    }
  }
  if (result == kCuSuccess) {
    // Once for the whole run: it costs more than mapping does, whatever its length.
    what = "cuMemSetAccess";
    const std::uint64_t bytes = run.count * granularity_bytes_;
    result = call().mem_set_access(first_address, bytes, accesses_.data(), accesses_.size());
    if (result != kCuSuccess && accesses_.size() > 1) {
      static_cast<void>(fail("cuMemSetAccess for peers", result));  // the device itself can do without them
      result = call().mem_set_access(first_address, bytes, accesses_.data(), 1);
    }
  }
  if (result != kCuSuccess) {
    unmap_unused(range, run.first, run.end());  // without access it must not be taken for committed
    return fail(what, result);
  }
  return true;
}

CuResult CudaDevice::map_chunk(std::uint64_t address, std::uint64_t bytes) noexcept {
  const CuMemoryProperties properties = properties_of(context_.device());
  CuMemoryHandle handle = 0;
  CuResult result = call().mem_create(&handle, bytes, &properties, 0);
  if (result != kCuSuccess) {
    return result;
  }
  result = call().mem_map(address, bytes, 0, handle, 0);
  // The mapping holds the memory from now on: it goes when it is unmapped.
  if (const CuResult released = call().mem_release(handle); released != kCuSuccess) {
    static_cast<void>(fail("cuMemRelease", released));
  }
  return result;
}

AddressRange CudaDevice::decommittable(std::uint64_t address, std::uint64_t bytes) noexcept {
  Range* range = find(address, bytes);
  if (range == nullptr || !virtual_memory_) {
    return {.address = address, .bytes = bytes};  // which decommit refuses
  }
  const std::uint64_t begin = (address - range->address) / granularity_bytes_;
  const std::lock_guard lock(range->mutex);
  const GranuleChunks::Run whole = range->chunks.whole_within(begin, begin + bytes / granularity_bytes_);
  return {.address = range->address + whole.first * granularity_bytes_, .bytes = whole.count * granularity_bytes_};
}

bool CudaDevice::decommit(std::uint64_t address, std::uint64_t bytes) noexcept {
  if (bytes == 0) {
    return true;
  }
  const CudaContext::Scope scope(context_);
  if (!scope) {
    return fail("the context", scope.result());
  }
  Range* range = find(address, bytes);
  if (range == nullptr || !virtual_memory_) {
    return false;
  }
  const std::uint64_t begin = (address - range->address) / granularity_bytes_;
  const std::uint64_t end = begin + bytes / granularity_bytes_;
  const std::lock_guard lock(range->mutex);
  range->chunks.set_used(begin, end, false);
  if (!unmap_unused(*range, begin, end)) {
    range->chunks.set_used(begin, end, true);
    return false;
  }
  return true;
}

bool CudaDevice::unmap_unused(Range& range, std::uint64_t begin, std::uint64_t end) noexcept {
  GranuleChunks& chunks = range.chunks;
  bool complete = true;
  for (auto run = chunks.find_unused(begin, end); run; run = chunks.find_unused(run.end(), end)) {
    // Neighbours go in one call.
    for (auto next = chunks.find_unused(run.end(), end); next && next.first == run.end();
         next = chunks.find_unused(run.end(), end)) {
      run.count += next.count;
    }
    const std::uint64_t address = range.address + run.first * granularity_bytes_;
    const CuResult result = call().mem_unmap(address, run.count * granularity_bytes_);
    if (result == kCuSuccess) {
      chunks.remove_chunk(run);
    } else {
      complete = fail("cuMemUnmap", result);
    }
  }
  return complete;
}

void CudaDevice::release(const Reservation& reservation) noexcept {
  const CudaContext::Scope scope(context_);
  if (!scope) {
    context_.log_failure("Cannot give back " + format_memory_size(reservation.bytes), "the context", scope.result());
    return;
  }
  std::unique_ptr<Range> range;
  {
    const std::lock_guard lock(mutex_);
    const auto found = ranges_.find(reservation.address);
    if (found == ranges_.end()) {
      return;
    }
    range = std::move(found->second);
    ranges_.erase(found);
  }
  CuResult result = kCuSuccess;
  if (virtual_memory_) {
    range->chunks.set_used(0, range->chunks.count(), false);
    unmap_unused(*range, 0, range->chunks.count());
    result = call().mem_address_free(reservation.address, reservation.bytes);
  } else {
    result = deallocate(reservation.address);
  }
  if (result != kCuSuccess) {
    context_.log_failure("Could not give back " + format_memory_size(reservation.bytes), "the driver", result);
  }
}

DirectAllocation CudaDevice::allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  if (bytes > std::numeric_limits<std::uint64_t>::max() - alignment) {
    return {};
  }
  const CudaContext::Scope scope(context_);
  std::uint64_t address = 0;
  const CuResult result = scope ? allocate(std::max<std::uint64_t>(bytes, 1), alignment, address) : scope.result();
  if (result != kCuSuccess) {
    static_cast<void>(fail("cuMemAlloc", result));
    return {};
  }
  return {.address = address, .zeroed = false};
}

void CudaDevice::free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t /*alignment*/) noexcept {
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? deallocate(address) : scope.result();
  if (result != kCuSuccess) {
    context_.log_failure("Could not give back " + format_memory_size(bytes), "cuMemFree", result);
  }
}

void CudaDevice::copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) {
  if (bytes == 0) {
    return;
  }
  const CudaContext::Scope scope(context_);
  CuResult result = scope ? call().mem_copy(destination, source, bytes) : scope.result();
  if (result == kCuSuccess) {
    result = call().stream_synchronize(nullptr);  // between device addresses the driver returns before it is done
  }
  if (result != kCuSuccess) {
    context_.raise("Cannot copy " + format_memory_size(bytes), "cuMemcpy", result);
  }
}

}  // namespace tierpool
