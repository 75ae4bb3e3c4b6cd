#include "tierpool/device/host_device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <system_error>
#include <thread>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"
#include "tierpool/base/memory_size.hpp"
#include "tierpool/base/parallel.hpp"
#include "tierpool/device/host_pages.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kGranularityBytes = 2 * kMiB;     // a huge page of x86-64 and 4 KiB-paged Arm
constexpr std::uint64_t kChunkBytes = 4 * kMiB;           // what a populating thread takes at a time
constexpr std::uint64_t kParallelBytes = 32 * kMiB;       // from here on threads pay off even if they find no idle core
constexpr std::uint64_t kMappedDirectBytes = 128 * kKiB;  // direct allocations from here on are mappings
constexpr std::uint64_t kHugeDirectBytes = 4 * kMiB;      // and from here on worth whole huge pages

std::uint64_t page_bytes() noexcept { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

void unmap(std::uint64_t address, std::uint64_t bytes) noexcept {
  if (bytes == 0 || munmap(pointer_at(address), bytes) == 0) {
    return;
  }
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(),
                "Could not unmap %llu bytes of host memory at 0x%llx (errno %d); they stay in use",
                static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address), errno);
  log(LogLevel::error, text.data());
}

/// Whole pages of zeroed memory at a multiple of `alignment`; 0 with errno set when the system has none.
std::uint64_t map_aligned(std::uint64_t bytes, std::uint64_t alignment, int extra_flags) noexcept {
  const std::uint64_t slack = alignment - std::min(alignment, page_bytes());
  if (bytes > std::numeric_limits<std::size_t>::max() - slack) {
    errno = ENOMEM;
    return 0;
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | extra_flags;
  void* mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapping == MAP_FAILED) {
    return 0;
  }
  const std::uint64_t first = address_of(mapping);
  const std::uint64_t address = align_up(first, alignment);
  const std::uint64_t head = address - first;
  const bool cut = (head == 0 || munmap(mapping, head) == 0) &&
                   (slack == head || munmap(pointer_at(address + bytes), slack - head) == 0);
  if (!cut) {
    // Cutting takes one more entry in the process's table of mappings; without one, nothing of it is kept.
    munmap(mapping, bytes + slack);
    errno = ENOMEM;
    return 0;
  }
  return address;
}

/// Puts new shared memory in the place of a mapping; its descriptor, or -1 with errno set, and the mapping as it was.
int share_in_place(std::uint64_t address, std::uint64_t bytes) noexcept {
  const int file_descriptor = create_shared_memory(bytes);
  if (file_descriptor < 0) {
    return -1;
  }
  const int flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
  if (mmap(pointer_at(address), bytes, PROT_READ | PROT_WRITE, flags, file_descriptor, 0) == MAP_FAILED) {
    const int error = errno;
    close(file_descriptor);
    errno = error;
    return -1;
  }
  refuse_huge_pages(address, bytes);
  return file_descriptor;
}

/// Populates from as many threads as pay off and can be started, the calling one among them.
bool populate_in_parallel(std::uint64_t address, std::uint64_t bytes) noexcept {
  std::atomic<std::uint64_t> next_offset{0};
  std::atomic<bool> populated{true};
  const auto work = [&]() noexcept {
    while (populated.load(std::memory_order_relaxed)) {
      const std::uint64_t offset = next_offset.fetch_add(kChunkBytes, std::memory_order_relaxed);
      if (offset >= bytes) {
        return;
      }
      if (!populate_pages(address + offset, std::min(kChunkBytes, bytes - offset))) {
        populated.store(false, std::memory_order_relaxed);
      }
    }
  };
  const std::uint64_t chunks = (bytes + kChunkBytes - 1) / kChunkBytes;
  run_in_parallel(std::min(std::uint64_t{std::thread::hardware_concurrency()}, chunks), work);
  return populated.load(std::memory_order_relaxed);
}

}  // namespace

std::uint64_t HostDevice::total_bytes() const { return host_memory().total_bytes; }

std::uint64_t HostDevice::free_bytes() const { return host_memory().available_bytes; }

std::uint64_t HostDevice::granularity_bytes() const noexcept { return kGranularityBytes; }

std::uint64_t HostDevice::max_alignment_bytes() const noexcept { return kGranularityBytes; }

Reservation HostDevice::reserve(std::uint64_t bytes) {
  if (bytes == 0) {
    throw DeviceError("Cannot reserve 0B of host addresses: a reservation holds at least one byte");
  }
  std::uint64_t address = 0;
  std::uint64_t rounded_bytes = 0;
  errno = ENOMEM;
  if (bytes <= std::numeric_limits<std::uint64_t>::max() - kGranularityBytes) {
    rounded_bytes = align_up(bytes, kGranularityBytes);
    address = map_aligned(rounded_bytes, kGranularityBytes, MAP_NORESERVE);
  }
  if (address == 0) {
    const std::string reason = std::generic_category().message(errno);
    throw DeviceError("Cannot reserve " + format_memory_size(bytes) + " of host addresses: " + reason +
                      "; use smaller or fewer heaps, or raise the limit on virtual memory (ulimit -v) or on "
                      "mappings (vm.max_map_count)");
  }
  if (backing_ == HostBacking::shared_memory) {
    const int file_descriptor = share_in_place(address, rounded_bytes);
    if (file_descriptor < 0) {
      const std::string reason = std::generic_category().message(errno);
      unmap(address, rounded_bytes);
      throw DeviceError("Cannot reserve " + format_memory_size(bytes) + " of shared host memory: " + reason +
                        "; raise the limit on open files (ulimit -n) or on their size (ulimit -f)");
    }
    return {.address = address, .bytes = rounded_bytes, .file_descriptor = file_descriptor};
  }
  // Once for the whole range: asked at each commit, it would split the mapping and lock out other threads' faults.
  advise_huge_pages(address, rounded_bytes);
  return {.address = address, .bytes = rounded_bytes};
}

bool HostDevice::commit(std::uint64_t address, std::uint64_t bytes) noexcept {
  return bytes < kParallelBytes ? populate_pages(address, bytes) : populate_in_parallel(address, bytes);
}

bool HostDevice::decommit(std::uint64_t address, std::uint64_t bytes) noexcept {
  return backing_ == HostBacking::shared_memory ? discard_shared_pages(address, bytes) : discard_pages(address, bytes);
}

void HostDevice::release(const Reservation& reservation) noexcept {
  unmap(reservation.address, reservation.bytes);
  if (reservation.file_descriptor >= 0) {
    close(reservation.file_descriptor);
  }
}

DirectAllocation HostDevice::allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept {
  if (bytes < kMappedDirectBytes) {
    void* pointer = nullptr;
    const std::uint64_t usable_alignment = std::max<std::uint64_t>(alignment, alignof(std::max_align_t));
    const int error = posix_memalign(&pointer, usable_alignment, std::max<std::uint64_t>(bytes, 1));
    return {.address = error == 0 ? address_of(pointer) : 0, .zeroed = false};
  }
  if (bytes > std::numeric_limits<std::uint64_t>::max() - page_bytes()) {
    return {};
  }
  // Without MAP_NORESERVE, so that the system refuses here what it would refuse to malloc().
  const bool huge = bytes >= kHugeDirectBytes;
  const std::uint64_t mapped_bytes = align_up(bytes, page_bytes());
  const std::uint64_t address = map_aligned(mapped_bytes, huge ? std::max(alignment, kGranularityBytes) : alignment, 0);
  if (address != 0 && huge) {
    advise_huge_pages(address, mapped_bytes);
  }
  return {.address = address, .zeroed = address != 0};
}

void HostDevice::free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t /*alignment*/) noexcept {
  if (bytes < kMappedDirectBytes) {
    std::free(pointer_at(address));
  } else {
    unmap(address, align_up(bytes, page_bytes()));
  }
}

void HostDevice::copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) {
  if (bytes > 0) {
    std::memcpy(pointer_at(destination), pointer_at(source), bytes);
  }
}

}  // namespace tierpool
