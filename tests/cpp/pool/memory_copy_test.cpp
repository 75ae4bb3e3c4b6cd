// Copies on a driver that makes none before somebody waits for it: what is read or overwritten too early is wrong.

#include "tierpool/pool/memory_copy.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "device/cuda_fixture.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"

namespace tierpool::testing {
namespace {

using Bytes = std::vector<unsigned char>;
constexpr std::uint64_t kSlot = StagingRing::kSlotBytes;
constexpr std::uint64_t kWrap = StagingRing::kBytes + 2 * kSlot;  // so that slots are used again

CopyEnd pageable(const Bytes& bytes) { return {.address = address_of(bytes.data())}; }

class MemoryCopyTest : public FakeCudaTest {
 protected:
  MemoryCopyTest() {
    ring_of_test = std::make_shared<StagingRing>(pinned_);
    fake_cuda_hold_work(true);
  }
  void TearDown() override {
    ring_of_test.reset();
    pinned_.reset();
    device_.reset();
    FakeCudaTest::TearDown();
  }

  static std::shared_ptr<StagingRing> find_ring(Device& /*device*/) { return ring_of_test; }
  static inline std::shared_ptr<StagingRing> ring_of_test;

  [[nodiscard]] std::shared_ptr<MemoryPool> make_pool(const std::shared_ptr<Device>& device) const {
    PoolConfig config;
    config.heap_size_bytes = 256 * kMiB;
    config.num_heaps = 1;
    config.warmup_bytes = {};
    return MemoryPool::create(config, device);
  }
  void copy(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes,
            std::optional<StreamHandle> stream = std::nullopt) {
    copy_memory(destination, source, bytes, stream, find_ring);
  }
  [[nodiscard]] CopyEnd on_device(const Buffer& buffer) const {
    return {.address = buffer.allocation().address, .pool = device_.get()};
  }
  [[nodiscard]] Buffer allocate(std::uint64_t bytes) const { return {*device_, device_->allocate(bytes)}; }

  std::shared_ptr<MemoryPool> device_ = make_pool(std::make_shared<CudaDevice>(0, CudaDeviceOptions{}, *driver_));
  std::shared_ptr<MemoryPool> pinned_ =
      make_pool(std::make_shared<PinnedHostDevice>(0, PinnedHostDeviceOptions{}, *driver_));
  const StreamHandle stream_ = fake_cuda_create_stream(0);
};

TEST_F(MemoryCopyTest, PageableMemoryHasBeenReadAndWrittenOnReturn) {
  for (const std::uint64_t bytes : {std::uint64_t{1}, kSlot - 1, kSlot, kSlot + 1, kWrap + 5}) {
    for (const std::optional<StreamHandle> stream : {std::optional<StreamHandle>(), std::optional(stream_),
                                                     std::optional(kPerThreadStream), std::optional(kLegacyStream)}) {
      const Buffer buffer = allocate(bytes);
      const Bytes expected = random_bytes(bytes, static_cast<std::uint32_t>(bytes));
      Bytes sent = expected;
      copy(on_device(buffer), pageable(sent), bytes, stream);
      std::fill(sent.begin(), sent.end(), static_cast<unsigned char>(0));
      Bytes found(bytes);
      copy(pageable(found), on_device(buffer), bytes, stream);
      ASSERT_TRUE(found == expected) << bytes;
    }
  }
}

TEST_F(MemoryCopyTest, ThreadsShareTheSlots) {
  const std::uint64_t bytes = 5 * kSlot + 77;
  const auto work = [&](std::uint32_t seed) {
    const Buffer buffer = allocate(bytes);
    for (int round = 0; round < 4; ++round) {
      const Bytes sent = random_bytes(bytes, seed + static_cast<std::uint32_t>(round));
      Bytes found(bytes);
      copy(on_device(buffer), pageable(sent), bytes);
      copy(pageable(found), on_device(buffer), bytes);
      EXPECT_TRUE(found == sent);
    }
  };
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back(work, 10 * i);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_F(MemoryCopyTest, AFileHasBeenReadOnReturn) {
  const Bytes expected = random_bytes(kWrap + 5, 8);
  const TemporaryFile written(expected);
  const ReadableFile file(written.path());
  for (const std::uint64_t bytes : {std::uint64_t{1}, kSlot, kWrap}) {
    for (const std::optional<StreamHandle> stream : {std::optional<StreamHandle>(), std::optional(stream_)}) {
      const Buffer buffer = allocate(bytes);
      copy(on_device(buffer), {.address = 3, .file = &file}, bytes, stream);
      Bytes found(bytes);
      copy(pageable(found), on_device(buffer), bytes, stream);
      ASSERT_TRUE(std::equal(found.begin(), found.end(), expected.begin() + 3)) << bytes;
    }
  }
}

TEST_F(MemoryCopyTest, AFileIsReadIntoMemoryOfTheHostWithoutAStream) {
  const Bytes expected = random_bytes(5 * kSlot + 5, 9);
  const TemporaryFile written(expected);
  const ReadableFile file(written.path());
  const CopyEnd source{.address = 0, .file = &file};
  const Buffer buffer(*pinned_, pinned_->allocate(expected.size()));
  const CopyEnd pinned{.address = buffer.allocation().address, .pool = pinned_.get()};
  copy(pinned, source, expected.size());
  EXPECT_EQ(std::memcmp(pointer_at(pinned.address), expected.data(), expected.size()), 0);
  EXPECT_THROW(copy(pinned, source, expected.size(), stream_), DeviceError);
  Bytes found(expected.size());
  copy(pageable(found), source, found.size());
  EXPECT_TRUE(found == expected);
}

TEST_F(MemoryCopyTest, AFileThatIsCutIsAReadErrorAndTheSlotsComeBack) {
  const Bytes expected = random_bytes(kWrap, 10);
  const TemporaryFile written(expected);
  const ReadableFile file(written.path());
  const Buffer buffer = allocate(expected.size());
  EXPECT_THROW(copy(on_device(buffer), {.address = 1, .file = &file}, expected.size()), ReadError);  // it ends before
  ASSERT_EQ(truncate(written.path().c_str(), 7 * kSlot + 1), 0);
  for (int round = 0; round < 3; ++round) {
    EXPECT_THROW(copy(on_device(buffer), {.address = 0, .file = &file}, expected.size(), stream_), ReadError);
  }
  copy(on_device(buffer), {.address = 0, .file = &file}, 7 * kSlot + 1);
  Bytes found(7 * kSlot + 1);
  copy(pageable(found), on_device(buffer), found.size());
  EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin()));
}

TEST_F(MemoryCopyTest, NothingArrivesAfterACopyWithoutAStreamHasFailed) {
  const Bytes ones(12 * kSlot, 1);
  const TemporaryFile written(ones);
  const ReadableFile file(written.path());
  ASSERT_EQ(truncate(written.path().c_str(), 11 * kSlot), 0);
  const Buffer buffer = allocate(ones.size());
  EXPECT_THROW(copy(on_device(buffer), {.address = 0, .file = &file}, ones.size()), ReadError);
  void* bytes = pointer_at(buffer.allocation().address);
  std::memset(bytes, 7, ones.size());
  ASSERT_TRUE(device_->device().streams()->synchronize_device());
  EXPECT_EQ(std::memchr(bytes, 1, ones.size()), nullptr);
}

TEST_F(MemoryCopyTest, ASourceWhoseContextHasGoneIsRefused) {
  const auto other = make_pool(std::make_shared<CudaDevice>(1, CudaDeviceOptions{}, *driver_));
  const Buffer source(*other, other->allocate(100));
  const Buffer buffer = allocate(100);
  fake_cuda_reset_device(1);
  EXPECT_THROW(copy(on_device(buffer), {.address = source.allocation().address, .pool = other.get()}, 100),
               DeviceError);
  EXPECT_EQ(fake_cuda_calls("cuMemcpyPeerAsync"), 0u);
}

TEST_F(MemoryCopyTest, PinnedMemoryIsCopiedWithoutStagingAndLater) {
  const Buffer staging(*pinned_, pinned_->allocate(100));
  const Buffer buffer = allocate(100);
  const CopyEnd pinned{.address = staging.allocation().address, .pool = pinned_.get()};
  std::memset(pointer_at(pinned.address), 1, 100);
  copy(on_device(buffer), pinned, 100, stream_);
  std::memset(pointer_at(pinned.address), 2, 100);  // the copy has not been made yet
  Bytes found(100);
  copy(pageable(found), on_device(buffer), 100, stream_);
  EXPECT_EQ(found, Bytes(100, 2));
  copy(on_device(buffer), pinned, 100);
  std::memset(pointer_at(pinned.address), 3, 100);  // without a stream it has
  copy(pageable(found), on_device(buffer), 100);
  EXPECT_EQ(found, Bytes(100, 2));
}

TEST_F(MemoryCopyTest, AFailureAtEveryCopyIsThrownAndTheNextOneWorks) {
  const std::uint64_t bytes = 9 * kSlot;
  const Buffer buffer = allocate(bytes);
  const Bytes sent = random_bytes(bytes, 4);
  for (std::uint64_t after = 0; after < 9; ++after) {
    for (const bool out : {false, true}) {
      Bytes found(bytes);
      fake_cuda_fail("cuMemcpyAsync", 700, after, 1);
      EXPECT_THROW(copy(out ? pageable(found) : on_device(buffer), out ? on_device(buffer) : pageable(sent), bytes),
                   DeviceError);
      copy(on_device(buffer), pageable(sent), bytes);
      copy(pageable(found), on_device(buffer), bytes);
      EXPECT_TRUE(found == sent);
    }
  }
}

TEST_F(MemoryCopyTest, AnEventThatCannotBeRecordedMakesTheCopyWait) {
  const std::uint64_t bytes = kWrap;
  const Buffer buffer = allocate(bytes);
  const Bytes sent = random_bytes(bytes, 5);
  Bytes found(bytes);
  fake_cuda_fail("cuEventRecord", 400, 0, 1000);
  copy(on_device(buffer), pageable(sent), bytes, stream_);
  copy(pageable(found), on_device(buffer), bytes, stream_);
  EXPECT_TRUE(found == sent);
  fake_cuda_fail("cuEventRecord", 0, 0, 0);
}

TEST_F(MemoryCopyTest, AStreamBeingCapturedIsRefused) {
  const Buffer buffer = allocate(10);
  Bytes bytes(10);
  fake_cuda_set_capturing(stream_, true);
  for (const bool out : {false, true}) {
    try {
      copy(out ? pageable(bytes) : on_device(buffer), out ? on_device(buffer) : pageable(bytes), 10, stream_);
      FAIL();
    } catch (const DeviceError& error) {
      EXPECT_NE(std::string(error.what()).find("captured into a graph"), std::string::npos) << error.what();
    }
  }
  fake_cuda_set_capturing(stream_, false);
}

TEST_F(MemoryCopyTest, HostMemoryHasNoStreams) {
  const Bytes source = random_bytes(50, 6);
  Bytes found(50);
  copy(pageable(found), pageable(source), 50);
  EXPECT_EQ(found, source);
  EXPECT_THROW(copy(pageable(found), pageable(source), 50, stream_), DeviceError);
  copy(pageable(found), pageable(source), 0, stream_);  // nothing to order
}

}  // namespace
}  // namespace tierpool::testing
