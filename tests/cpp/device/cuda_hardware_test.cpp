// What only a GPU can show; without one, every test here says so and is skipped. Apart from the fake driver, whose
// functions have the names of the real one's.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "contracts/device_contract.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/cuda_library.hpp"
#include "tierpool/device/pinned_host_device.hpp"

namespace tierpool::testing {

struct MakeCuda {
  static constexpr const char* kName = "cuda:0";
  static std::shared_ptr<Device> make() {
    return CudaDriver::instance().is_available() ? std::make_shared<CudaDevice>() : nullptr;
  }
};
struct MakePinned {
  static constexpr const char* kName = "pinned";
  static std::shared_ptr<Device> make() {
    return CudaDriver::instance().is_available() ? std::make_shared<PinnedHostDevice>() : nullptr;
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Cuda, DeviceContract, MakeCuda);
INSTANTIATE_TYPED_TEST_SUITE_P(Pinned, DeviceContract, MakePinned);

namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;

class CudaHardware : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaDriver& driver = CudaDriver::instance();
    if (!driver.is_available()) {
      GTEST_SKIP() << "NO CUDA HERE: " << driver.unavailable_reason();
    }
  }
};

TEST_F(CudaHardware, OrderCopiesByEvents) {
  CudaDevice device;
  DeviceStreams& streams = *device.streams();
  constexpr std::uint64_t kBytes = 64 * kMiB;
  const Reservation range = device.reserve(2 * kBytes);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  std::vector<unsigned char> sent(kBytes, 0x42);
  std::vector<unsigned char> received(kBytes, 0);
  const EventHandle event = streams.create_event();
  ASSERT_NE(event, kNoEvent);
  EXPECT_EQ(streams.query_event(event), EventState::complete);
  EXPECT_FALSE(streams.is_capturing(kPerThreadStream));
  streams.copy_async(range.address, address_of(sent.data()), kBytes, kPerThreadStream);
  ASSERT_TRUE(streams.record_event(event, kPerThreadStream));
  ASSERT_TRUE(streams.wait_event(kDefaultStream, event));
  streams.copy_async(range.address + kBytes, range.address, kBytes, kDefaultStream);
  streams.copy_async(address_of(received.data()), range.address + kBytes, kBytes, kDefaultStream);
  ASSERT_TRUE(streams.synchronize_device());
  EXPECT_EQ(streams.query_event(event), EventState::complete);
  EXPECT_EQ(sent, received);
  streams.destroy_event(event);
  device.release(range);
}

TEST_F(CudaHardware, CopiesCrossGranulesCommittedApart) {
  PinnedHostDevice pinned;
  CudaDevice cuda;
  DeviceStreams& streams = *cuda.streams();
  const Reservation host = pinned.reserve(8 * kGranule);
  const Reservation device = cuda.reserve(8 * kGranule);
  for (std::uint64_t offset = 0; offset < host.bytes; offset += kGranule) {
    ASSERT_TRUE(pinned.commit(host.address + offset, kGranule));
    ASSERT_TRUE(cuda.commit(device.address + offset, kGranule));
  }
  auto* bytes = static_cast<unsigned char*>(pointer_at(host.address));
  std::memset(bytes, 0x35, host.bytes);
  streams.copy_async(device.address, host.address, host.bytes, kDefaultStream);
  ASSERT_TRUE(streams.synchronize_stream(kDefaultStream));
  std::memset(bytes, 0, host.bytes);
  streams.copy_async(host.address, device.address, host.bytes, kDefaultStream);
  ASSERT_TRUE(streams.synchronize_stream(kDefaultStream));
  EXPECT_EQ(std::count(bytes, bytes + host.bytes, 0x35), static_cast<std::ptrdiff_t>(host.bytes));
  cuda.release(device);
  pinned.release(host);
}

TEST_F(CudaHardware, WriteCombinedMemoryIsCopiedFrom) {
  PinnedHostDevice pinned(0, {.write_combined = true});
  CudaDevice cuda;
  DeviceStreams& streams = *cuda.streams();
  const Reservation host = pinned.reserve(kGranule);
  const DirectAllocation device = cuda.allocate_direct(kGranule, 256);
  ASSERT_TRUE(device);
  std::memset(pointer_at(host.address), 0x29, kGranule);
  std::vector<unsigned char> received(kGranule, 0);
  streams.copy_async(device.address, host.address, kGranule, kPerThreadStream);
  streams.copy_async(address_of(received.data()), device.address, kGranule, kPerThreadStream);
  ASSERT_TRUE(streams.synchronize_stream(kPerThreadStream));
  EXPECT_EQ(std::count(received.begin(), received.end(), 0x29), static_cast<std::ptrdiff_t>(kGranule));
  cuda.free_direct(device.address, kGranule, 256);
  pinned.release(host);
}

TEST_F(CudaHardware, MemoryIsTakenAndGivenBackByGranule) {
  CudaDevice device;
  ASSERT_TRUE(device.has_virtual_memory());
  constexpr std::uint64_t kBytes = 4 * kGiB;
  const Reservation range = device.reserve(kBytes);
  const std::uint64_t before = device.free_bytes();
  ASSERT_TRUE(device.commit(range.address, kBytes));
  EXPECT_LE(device.free_bytes(), before - kBytes);
  ASSERT_TRUE(device.decommit(range.address + kGranule, kBytes - 2 * kGranule));
  EXPECT_GE(device.free_bytes(), before - 2 * CudaDeviceOptions{}.chunk_bytes);  // the pieces at its two ends
  device.release(range);
}

TEST_F(CudaHardware, TheDriverGetsBackWhatIsSaid) {
  CudaDevice device;
  constexpr std::uint64_t kBytes = 4 * kGiB;  // in pieces of 16 granules
  const Reservation range = device.reserve(kBytes);
  ASSERT_TRUE(device.commit(range.address, kBytes));
  std::uint64_t left = kBytes;
  for (std::uint64_t begin = 3 * kGranule; begin + 70 * kGranule <= kBytes; begin += 200 * kGranule) {
    const AddressRange part = device.decommittable(range.address + begin, 70 * kGranule);
    EXPECT_LE(part.bytes, 70 * kGranule);
    const std::uint64_t before = device.free_bytes();
    ASSERT_TRUE(device.decommit(part.address, part.bytes));
    EXPECT_GE(device.free_bytes(), before + part.bytes);
    left -= part.bytes;
  }
  EXPECT_LT(left, kBytes);
  const std::uint64_t before = device.free_bytes();
  device.release(range);
  EXPECT_GE(device.free_bytes(), before + left);
}

TEST_F(CudaHardware, ShortageIsAnAnswer) {
  CudaDevice device;
  EXPECT_FALSE(device.allocate_direct(device.total_bytes(), 256));
  const Reservation range = device.reserve(device.total_bytes());
  EXPECT_FALSE(device.commit(range.address, range.bytes));
  EXPECT_EQ(device.fault(), "");
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  EXPECT_TRUE(device.commit(range.address, kGranule));
  device.release(range);
}

/// What only these tests ask of the driver.
template <typename Function>
Function* driver_function(const char* name) {
  std::string reason;
  return reinterpret_cast<Function*>(find_cuda_function(open_cuda_library(default_cuda_library(), reason), name));
}

/// A stream of the device, and its capture into a graph that is never run.
class CapturedStream {
 public:
  explicit CapturedStream(CudaContext& context) : context_(context) {
    const CudaContext::Scope scope(context_);
    driver_function<CuResult(CuStream*, unsigned)>("cuStreamCreate")(&stream_, 1);
  }
  ~CapturedStream() { destroy(); }
  CapturedStream(const CapturedStream&) = delete;
  CapturedStream& operator=(const CapturedStream&) = delete;

  [[nodiscard]] StreamHandle handle() const { return address_of(stream_); }
  /// In the mode that forbids the most.
  [[nodiscard]] CuResult begin() {
    return driver_function<CuResult(CuStream, int)>("cuStreamBeginCapture_v2")(stream_, 0);
  }
  [[nodiscard]] CuResult end() {
    void* graph = nullptr;
    const CuResult result = driver_function<CuResult(CuStream, void**)>("cuStreamEndCapture")(stream_, &graph);
    if (result == kCuSuccess) {
      driver_function<CuResult(void*)>("cuGraphDestroy")(graph);
    }
    return result;
  }
  void destroy() {
    const CudaContext::Scope scope(context_);
    if (stream_ != nullptr) {
      driver_function<CuResult(CuStream)>("cuStreamDestroy_v2")(stream_);
      stream_ = nullptr;
    }
  }

 private:
  CudaContext& context_;
  CuStream stream_ = nullptr;
};

TEST_F(CudaHardware, NothingADeviceDoesBreaksACapture) {
  CudaContext context(CudaDriver::instance(), 0);
  CudaDevice device;
  PinnedHostDevice pinned;
  DeviceStreams& streams = *device.streams();
  CapturedStream stream(context);
  streams.require_stream(stream.handle());
  const EventHandle event = streams.create_event();
  ASSERT_TRUE(streams.record_event(event, kPerThreadStream));
  EXPECT_FALSE(streams.is_capturing(stream.handle()));
  ASSERT_EQ(stream.begin(), kCuSuccess);
  EXPECT_TRUE(streams.is_capturing(stream.handle()));
  EXPECT_NO_THROW(streams.require_stream(stream.handle()));
  EXPECT_FALSE(streams.is_capturing(kPerThreadStream));
  EXPECT_NE(streams.query_event(event), EventState::failed);
  for (Device* one : {static_cast<Device*>(&device), static_cast<Device*>(&pinned)}) {
    const Reservation range = one->reserve(4 * kGranule);
    EXPECT_TRUE(one->commit(range.address, range.bytes));
    const DirectAllocation direct = one->allocate_direct(kMiB, 256);
    EXPECT_TRUE(direct);
    EXPECT_GT(one->free_bytes(), 0u);
    one->free_direct(direct.address, kMiB, 256);
    EXPECT_TRUE(one->decommit(range.address, range.bytes));
    one->release(range);
    EXPECT_EQ(one->fault(), "");
  }
  const EventHandle other = streams.create_event();
  EXPECT_NE(other, kNoEvent);
  for (const StreamHandle lasting : {kDefaultStream, kPerThreadStream}) {
    EXPECT_FALSE(streams.is_capturing(lasting));
    EXPECT_TRUE(streams.record_event(other, lasting));
    EXPECT_TRUE(streams.synchronize_event(other));
  }
  streams.destroy_event(other);
  EXPECT_EQ(stream.end(), kCuSuccess);
  EXPECT_FALSE(streams.is_capturing(stream.handle()));
  streams.destroy_event(event);
}

TEST_F(CudaHardware, StreamsAreToldApartByIdWhereHandlesAreUsedAgain) {
  CudaContext context(CudaDriver::instance(), 0);
  CudaDevice device;
  DeviceStreams& streams = *device.streams();
  CapturedStream first(context);
  const std::uint64_t id = streams.stream_id(first.handle());
  EXPECT_NE(id, 0u);
  first.destroy();
  CapturedStream second(context);
  EXPECT_NE(streams.stream_id(second.handle()), 0u);
  EXPECT_NE(streams.stream_id(second.handle()), id);
  EXPECT_NE(streams.stream_id(kPerThreadStream), streams.stream_id(kDefaultStream));
}

}  // namespace
}  // namespace tierpool::testing
