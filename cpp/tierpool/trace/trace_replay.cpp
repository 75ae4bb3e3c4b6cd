#include "tierpool/trace/trace_replay.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr int kFillByte = 0x5a;

/// The allocations of a MemoryPool, by slot.
class PoolTarget {
 public:
  PoolTarget(MemoryPool& pool, std::uint32_t slot_count) : pool_(pool), live_(slot_count) {}

  std::uint64_t allocate(const TraceEvent& event) {
    Allocation& allocation = live_[event.slot];
    const AllocationOutcome outcome = pool_.serve({.bytes = event.bytes}, allocation);
    if (outcome != AllocationOutcome::served) [[unlikely]] {
      allocation = Allocation{};
      pool_.throw_failure(outcome, event.bytes);
    }
    return allocation.address;
  }
  void free(const TraceEvent& event) noexcept {
    static_cast<void>(pool_.release(live_[event.slot]));
    live_[event.slot].address = 0;
  }
  void free_all() noexcept {
    for (Allocation& allocation : live_) {
      if (allocation) {
        static_cast<void>(pool_.release(allocation));
      }
    }
  }

 private:
  MemoryPool& pool_;
  std::vector<Allocation> live_;
};

/// Plain addresses by slot, with their sizes; where they come from is the derived class's affair.
template <class Derived>
class AddressTarget {
 public:
  explicit AddressTarget(std::uint32_t slot_count) : live_(slot_count) {}

  std::uint64_t allocate(const TraceEvent& event) {
    const std::uint64_t address = derived().take(event.bytes);
    if (address == 0) [[unlikely]] {
      throw OutOfMemoryError("out of memory: " + derived().name() + " could not serve " + std::to_string(event.bytes) +
                                 " bytes of the trace; replay a smaller one",
                             {.requested_bytes = event.bytes});
    }
    live_[event.slot] = {address, event.bytes};
    return address;
  }
  void free(const TraceEvent& event) noexcept {
    derived().give_back(live_[event.slot].address, event.bytes);
    live_[event.slot].address = 0;
  }
  void free_all() noexcept {
    for (const Piece& piece : live_) {
      if (piece.address != 0) {
        derived().give_back(piece.address, piece.bytes);
      }
    }
  }

 private:
  struct Piece {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
  };
  Derived& derived() noexcept { return static_cast<Derived&>(*this); }

  std::vector<Piece> live_;
};

class DeviceTarget : public AddressTarget<DeviceTarget> {
 public:
  DeviceTarget(Device& device, std::uint32_t slot_count) : AddressTarget(slot_count), device_(device) {}

  std::uint64_t take(std::uint64_t bytes) noexcept { return device_.allocate_direct(bytes, kUnitBytes).address; }
  void give_back(std::uint64_t address, std::uint64_t bytes) noexcept {
    device_.free_direct(address, bytes, kUnitBytes);
  }
  [[nodiscard]] std::string name() const { return "device '" + device_.name() + "'"; }

 private:
  Device& device_;
};

class MallocTarget : public AddressTarget<MallocTarget> {
 public:
  using AddressTarget::AddressTarget;

  static std::uint64_t take(std::uint64_t bytes) noexcept {
    return reinterpret_cast<std::uintptr_t>(std::malloc(std::max<std::uint64_t>(bytes, 1)));
  }
  static void give_back(std::uint64_t address, std::uint64_t) noexcept { std::free(reinterpret_cast<void*>(address)); }
  [[nodiscard]] static std::string name() { return "malloc"; }
};

template <class Target>
std::uint64_t timed_run(const Trace& trace, Target& target, bool write) {
  const auto start = std::chrono::steady_clock::now();
  for (const TraceEvent& event : trace.events()) {
    if (!event.allocates) {
      target.free(event);
      continue;
    }
    const std::uint64_t address = target.allocate(event);
    if (write) {
      std::memset(reinterpret_cast<void*>(address), kFillByte, event.bytes);
    }
  }
  const auto elapsed = std::chrono::steady_clock::now() - start;
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
}

template <class Target>
std::uint64_t run(const Trace& trace, Target& target, bool write) {
  const auto free_all = [](Target* used) { used->free_all(); };
  const std::unique_ptr<Target, decltype(free_all)> at_the_end(&target, free_all);
  return timed_run(trace, target, write);
}

void check_writable(const Device& device, bool write) {
  if (write && !device.host_accessible()) {
    throw ConfigError("write: the processor cannot reach the memory of device '" + device.name() +
                      "'; replay without writing, or on device 'host'");
  }
}

}  // namespace

std::uint64_t replay(const Trace& trace, MemoryPool& pool, bool write) {
  check_writable(pool.device(), write);
  PoolTarget target(pool, trace.slot_count());
  return run(trace, target, write);
}

std::uint64_t replay_direct(const Trace& trace, Device& device, bool write) {
  check_writable(device, write);
  DeviceTarget target(device, trace.slot_count());
  return run(trace, target, write);
}

std::uint64_t replay_malloc(const Trace& trace, bool write) {
  MallocTarget target(trace.slot_count());
  return run(trace, target, write);
}

}  // namespace tierpool
