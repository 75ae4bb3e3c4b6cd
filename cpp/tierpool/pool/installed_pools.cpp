#include "tierpool/pool/installed_pools.hpp"

#include <array>
#include <atomic>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"

namespace tierpool::installed_pools {
namespace {

/// One pool that was ever installed. Never taken out, so that the list can be read without a lock.
struct Known {
  std::shared_ptr<MemoryPool> pool;
  Known* next = nullptr;
};

std::mutex install_mutex;
std::atomic<Known*> first_known{nullptr};
std::array<std::atomic<MemoryPool*>, kMaxDevices> current{};

void remember(std::shared_ptr<MemoryPool> pool) {
  for (const Known* known = first_known.load(); known != nullptr; known = known->next) {
    if (known->pool == pool) {
      return;
    }
  }
  // Leaked on purpose: memory may come back after static destruction.
  first_known.store(new Known{std::move(pool), first_known.load()}, std::memory_order_release);
}

struct Found {
  MemoryPool* lane = nullptr;
  Allocation allocation;
};

Found find_allocation(std::uint64_t address) noexcept {
  for (const Known* known = first_known.load(std::memory_order_acquire); known != nullptr; known = known->next) {
    MemoryPool& lane = known->pool->lane_of(address);
    const Allocation allocation = lane.find_array(address);
    if (allocation) {
      return {&lane, allocation};
    }
  }
  return {};
}

}  // namespace

void install(int device, std::shared_ptr<MemoryPool> pool) {
  if (device < 0 || device >= kMaxDevices) {
    throw std::invalid_argument("device must be from 0 to " + std::to_string(kMaxDevices - 1) + ", got " +
                                std::to_string(device));
  }
  const std::lock_guard<std::mutex> lock(install_mutex);
  MemoryPool* installed = pool.get();
  if (pool != nullptr) {
    remember(std::move(pool));
  }
  current[static_cast<std::size_t>(device)].store(installed, std::memory_order_release);
}

MemoryPool* find(int device) noexcept {
  return device < 0 || device >= kMaxDevices
             ? nullptr
             : current[static_cast<std::size_t>(device)].load(std::memory_order_acquire);
}

std::uint64_t allocate(int device, std::uint64_t bytes, StreamHandle stream, AllocationOutcome& outcome) noexcept {
  outcome = AllocationOutcome::closed;
  MemoryPool* pool = find(device);
  MemoryPool* lane = pool == nullptr ? nullptr : pool->lane(stream, outcome);
  if (lane == nullptr) {
    return 0;
  }
  Allocation allocation;
  outcome = lane->serve({.bytes = bytes, .holder = Holder::array, .may_log = false}, allocation);
  return outcome == AllocationOutcome::served ? allocation.address : 0;
}

void throw_failure(int device, std::uint64_t bytes, StreamHandle stream, AllocationOutcome outcome) {
  const MemoryPool* pool = find(device);
  if (pool == nullptr) {
    throw PoolClosedError("no pool is installed for device " + std::to_string(device) + "; install one first");
  }
  if (outcome == AllocationOutcome::capturing || outcome == AllocationOutcome::no_streams) {
    pool->throw_no_lane(outcome, stream);
  }
  pool->throw_failure(outcome, bytes);
}

bool release(std::uint64_t address) noexcept {
  const Found found = find_allocation(address);
  return found.lane != nullptr && found.lane->release(found.allocation);
}

bool record_stream(std::uint64_t address, StreamHandle stream) noexcept {
  Found found = find_allocation(address);
  return found.lane != nullptr && found.lane->record_stream(found.allocation, stream);
}

std::uint64_t trim() noexcept {
  std::uint64_t given_back = 0;
  for (const Known* known = first_known.load(std::memory_order_acquire); known != nullptr; known = known->next) {
    try {
      given_back += known->pool->trim(false);
    } catch (const std::bad_alloc&) {
      // Then what was given back so far is all.
    }
  }
  return given_back;
}

void require_whole_device(double fraction, int device) {
  if (fraction < 1) {
    throw std::invalid_argument("a pool serves device " + std::to_string(device) +
                                " and cannot be limited to a fraction of its memory, got " + std::to_string(fraction) +
                                "; build the pool with fewer or smaller heaps, or with max_bytes");
  }
}

std::uint64_t size_of(std::uint64_t address) noexcept { return find_allocation(address).allocation.block_bytes; }

}  // namespace tierpool::installed_pools
