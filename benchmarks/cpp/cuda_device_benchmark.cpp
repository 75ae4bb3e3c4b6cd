// What memory of a CUDA device and pinned memory cost to take and to give back, beside the driver's own calls: a table
// of milliseconds, the median of the rounds. Needs a GPU; says so and fails without one.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/memory_size.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"

namespace tierpool {
namespace {

constexpr int kRounds = 5;

double milliseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void expect(bool success, const char* what) {
  if (!success) {
    std::fprintf(stderr, "%s failed\n", what);
    std::exit(1);
  }
}

/// Times taking and giving back, each once a round.
void row(const std::string& name, std::uint64_t bytes, int rounds, const std::function<void()>& take,
         const std::function<void()>& give_back) {
  std::vector<double> taken;
  std::vector<double> given_back;
  for (int round = 0; round < rounds; ++round) {
    taken.push_back(milliseconds(take));
    given_back.push_back(milliseconds(give_back));
  }
  std::printf("%-36s %10s %12.3f %12.3f\n", name.c_str(), format_memory_size(bytes).c_str(), median(taken),
              median(given_back));
  std::fflush(stdout);
}

void measure_device(Device& device, const std::string& name, std::uint64_t bytes, int rounds) {
  const Reservation range = device.reserve(bytes);
  row(
      name, bytes, rounds, [&] { expect(device.commit(range.address, range.bytes), "commit"); },
      [&] { expect(device.decommit(range.address, range.bytes), "decommit"); });
  device.release(range);
}

void measure_cuda(std::uint64_t bytes) {
  const CudaFunctions& call = CudaDriver::instance().functions();
  CudaContext context(CudaDriver::instance(), 0);
  const CudaContext::Scope scope(context);
  CuAddress address = 0;
  row(
      "cuMemAlloc", bytes, kRounds, [&] { expect(call.mem_alloc(&address, bytes) == kCuSuccess, "cuMemAlloc"); },
      [&] { call.mem_free(address); });
  for (const std::uint64_t chunk_bytes : {2 * kMiB, 32 * kMiB}) {
    CudaDevice device(0, {.chunk_bytes = chunk_bytes, .virtual_memory = true});
    measure_device(device, "cuda:0, pieces up to " + format_memory_size(chunk_bytes), bytes, kRounds);
  }
}

void measure_pinned(std::uint64_t bytes, int rounds) {
  const CudaFunctions& call = CudaDriver::instance().functions();
  CudaContext context(CudaDriver::instance(), 0);
  const CudaContext::Scope scope(context);
  PinnedHostDevice device;
  measure_device(device, "pinned", bytes, rounds);
  HostDevice host;
  measure_device(host, "host (touched, not registered)", bytes, rounds);
  void* pointer = nullptr;
  row(
      "cuMemHostAlloc", bytes, rounds,
      [&] { expect(call.mem_host_alloc(&pointer, bytes, 3) == kCuSuccess, "cuMemHostAlloc"); },
      [&] { call.mem_free_host(pointer); });
}

void measure_call(const char* name, const std::function<void()>& work) {
  constexpr int kCalls = 20'000;
  work();
  const double total = milliseconds([&] {
    for (int i = 0; i < kCalls; ++i) {
      work();
    }
  });
  std::printf("%-36s %10.1f ns\n", name, total * 1e6 / kCalls);
}

void measure_streams() {
  CudaDevice device;
  DeviceStreams& streams = *device.streams();
  const EventHandle event = streams.create_event();
  measure_call("record_event", [&] { static_cast<void>(streams.record_event(event, kPerThreadStream)); });
  static_cast<void>(streams.synchronize_device());
  measure_call("query_event", [&] { static_cast<void>(streams.query_event(event)); });
  measure_call("wait_event", [&] { static_cast<void>(streams.wait_event(kPerThreadStream, event)); });
  measure_call("is_capturing", [&] { static_cast<void>(streams.is_capturing(kPerThreadStream)); });
  measure_call("stream_id", [&] { static_cast<void>(streams.stream_id(kPerThreadStream)); });
  measure_call("create and destroy an event", [&] { streams.destroy_event(streams.create_event()); });
  streams.destroy_event(event);
}

/// Host to device, through pinned memory: the link's speed.
void measure_copies() {
  constexpr std::uint64_t kBytes = kGiB;
  PinnedHostDevice pinned;
  CudaDevice device;
  DeviceStreams& streams = *device.streams();
  const Reservation source = pinned.reserve(kBytes);
  const DirectAllocation destination = device.allocate_direct(kBytes, 256);
  expect(pinned.commit(source.address, kBytes) && destination, "memory for copies");
  std::vector<double> taken;
  for (int round = 0; round < kRounds; ++round) {
    taken.push_back(milliseconds([&] {
      streams.copy_async(destination.address, source.address, kBytes, kPerThreadStream);
      static_cast<void>(streams.synchronize_stream(kPerThreadStream));
    }));
  }
  std::printf("copy of 1GiB, pinned to cuda:0       %10.1f GB/s\n", static_cast<double>(kBytes) / median(taken) / 1e6);
  device.free_direct(destination.address, kBytes, 256);
  pinned.release(source);
}

int run() {
  const CudaDriver& driver = CudaDriver::instance();
  if (!driver.is_available()) {
    std::fprintf(stderr, "No CUDA: %s\n", driver.unavailable_reason().c_str());
    return 1;
  }
  std::printf("%s, CUDA %d\n\n%-36s %10s %12s %12s\n", driver.device_name(0).c_str(), driver.version(), "", "size",
              "take ms", "give back ms");
  for (const std::uint64_t bytes : {2 * kMiB, 32 * kMiB, 512 * kMiB, 8 * kGiB}) {
    measure_cuda(bytes);
  }
  {
    HostDevice host;  // a virtual machine may get its memory only as it is touched first
    const Reservation range = host.reserve(20 * kGiB);
    expect(host.commit(range.address, range.bytes), "warming up the host's memory");
    host.release(range);
  }
  for (const std::uint64_t bytes : {32 * kMiB, 512 * kMiB}) {
    measure_pinned(bytes, kRounds);
  }
  measure_pinned(16 * kGiB, 3);
  std::printf("\n");
  measure_streams();
  measure_copies();
  return 0;
}

}  // namespace
}  // namespace tierpool

int main() { return tierpool::run(); }
