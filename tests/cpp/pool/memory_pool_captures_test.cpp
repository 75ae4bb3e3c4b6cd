// What a pool does while streams are captured into graphs, and where a device cannot tell when it has done.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "device/cuda_fixture.hpp"
#include "support/captured_log.hpp"
#include "support/stream_pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"

namespace tierpool::testing {
namespace {

class MemoryPoolCapturesTest : public StreamPoolTest {
 protected:
  MemoryPool& build_pool(bool magazines = false) {
    return StreamPoolTest::build_pool([magazines](PoolConfig& config) {
      config.magazines = magazines;
      config.on_exhaustion = OnExhaustion::raise;
    });
  }
};

TEST_F(MemoryPoolCapturesTest, WhatAGraphMayUseStaysUntilThePoolCloses) {
  MemoryPool& pool = build_pool();
  MemoryPool& lane = pool.lane(b_);
  const Allocation allocation = lane.allocate(16 * kGranule);
  streams().begin_capture(a_);
  ASSERT_TRUE(lane.release(allocation, a_));
  EXPECT_THROW(static_cast<void>(lane.allocate(kGranule)), OutOfMemoryError);
  streams().end_capture(a_);
  EXPECT_FALSE(pool.poll_pending());
  EXPECT_THROW(static_cast<void>(lane.allocate(kGranule)), OutOfMemoryError);
  EXPECT_EQ(pool.trim(), 0u);
  EXPECT_EQ(pending_bytes(), 16 * kGranule);
  expect_identities(pool);
  pool.close();
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(device_->committed_bytes(), 0u);
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolCapturesTest, ReleaseOnTheCapturedStreamItselfIsNoDifferent) {
  for (const bool magazines : {false, true}) {
    MemoryPool& pool = build_pool(magazines);
    MemoryPool& lane = pool.lane(a_);
    const Allocation allocation = lane.allocate(kGranule / 64);
    streams().begin_capture(a_);
    ASSERT_TRUE(lane.release(allocation, a_));
    EXPECT_FALSE(lane.release(allocation, a_));
    streams().end_capture(a_);
    EXPECT_EQ(pending_bytes(), allocation.block_bytes);
    const Allocation other = lane.allocate(kGranule / 64);
    EXPECT_NE(other.address, allocation.address);
    EXPECT_TRUE(lane.release(other, a_));
  }
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolCapturesTest, FallbackThatAGraphMayUseStaysToo) {
  MemoryPool& pool = build(kGranule, 1, [](PoolConfig& config) { config.magazines = false; });
  MemoryPool& lane = pool.lane(a_);
  const Allocation fallback = lane.allocate(2 * kGranule);
  ASSERT_TRUE(fallback.is_fallback());
  streams().begin_capture(a_);
  ASSERT_TRUE(lane.release(fallback, a_));
  streams().end_capture(a_);
  static_cast<void>(pool.trim());
  EXPECT_EQ(device_->direct_bytes(), 2 * kGranule);
  pool.close();
  EXPECT_EQ(device_->direct_bytes(), 0u);
  EXPECT_EQ(streams().misuse_count(), 0u);
}

TEST_F(MemoryPoolCapturesTest, LanesWithoutMemoryEndWithoutADeviceThatHasToBeIdle) {
  MemoryPool& pool = build_pool();
  static_cast<void>(pool.lane(b_));
  streams().begin_capture(a_);
  pool.close();
  EXPECT_EQ(device_->reserved_bytes(), 0u);
  EXPECT_EQ(streams().misuse_count(), 0u);
  streams().end_capture(a_);
}

TEST_F(MemoryPoolCapturesTest, HeapThatCannotBeWaitedForStaysUntilThePoolEnds) {
  MemoryPool& pool = build_pool();
  ASSERT_TRUE(pool.release(pool.allocate(4 * kGranule)));
  streams().fail(StreamCall::synchronize);
  pool.close();
  EXPECT_EQ(device_->committed_bytes(), 4 * kGranule);
  EXPECT_EQ(pool.statistics().committed_bytes, 4 * kGranule);
  streams().recover();
}

TEST_F(MemoryPoolCapturesTest, HeapThatCanNeverBeWaitedForStaysForGood) {
  auto device = std::make_shared<SimulatedDevice>(kGiB, kGranule);
  auto pool = MemoryPool::create(quiet_config(16 * kGranule, 1), device);
  ASSERT_TRUE(pool->release(pool->allocate(4 * kGranule)));
  device->simulated_streams().fail(StreamCall::synchronize);
  pool->close();
  pool.reset();
  EXPECT_EQ(device->committed_bytes(), 4 * kGranule);
  EXPECT_EQ(device->misuse_count(), 0u);
}

TEST_F(MemoryPoolCapturesTest, ReleaseThatCannotBeWaitedForKeepsItsMemory) {
  MemoryPool& pool = build_pool();
  const Allocation allocation = pool.allocate(4 * kGranule);
  pool.close();  // from here on nothing is deferred
  streams().enqueue(b_, [&] { device_->use(allocation.address, 4 * kGranule); });
  streams().fail(StreamCall::synchronize);
  EXPECT_TRUE(pool.release(allocation, b_));
  EXPECT_FALSE(pool.release(allocation, b_));
  EXPECT_EQ(device_->committed_bytes(), 4 * kGranule);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  streams().recover();
  pool_.reset();
  EXPECT_EQ(device_->committed_bytes(), 0u);
  EXPECT_EQ(streams().queued_count(), 0u);
  EXPECT_EQ(device_->misuse_count(), 0u);
}

/// On a driver that counts what invalidates a capture.
class CudaPoolCapturesTest : public FakeCudaTest {
 protected:
  static constexpr std::uint64_t kBytes = std::uint64_t{4} << 20;

  CudaPoolCapturesTest() { fake_cuda_make_blocking(stream_); }

  const StreamHandle stream_ = fake_cuda_create_stream(0);
  std::shared_ptr<MemoryPool> pool_ =
      MemoryPool::create(quiet_config(kBytes, 1), std::make_shared<CudaDevice>(0, CudaDevice::Options{}, *driver_));
};

TEST_F(CudaPoolCapturesTest, DefaultStreamIsLeftAloneDuringACapture) {
  const Allocation fallback = pool_->allocate(2 * kBytes);
  ASSERT_TRUE(fallback.is_fallback());
  ASSERT_TRUE(pool_->release(pool_->allocate(kBytes)));
  fake_cuda_set_capturing(stream_, true);
  ASSERT_TRUE(pool_->release(fallback));
  EXPECT_EQ(pool_->trim(), 0u);
  EXPECT_FALSE(pool_->poll_pending());
  EXPECT_EQ(pool_->statistics().fallback_pending_bytes, 2 * kBytes);
  fake_cuda_set_capturing(stream_, false);
  EXPECT_TRUE(pool_->poll_pending());
  EXPECT_EQ(pool_->trim(), kBytes);
  pool_.reset();
}

TEST_F(CudaPoolCapturesTest, AllocationOnACapturedStreamIsRefusedAndLeavesTheCaptureValid) {
  fake_cuda_set_capturing(stream_, true);
  try {
    static_cast<void>(pool_->lane(stream_));
    ADD_FAILURE() << "served a graph";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("captured into a graph"), std::string::npos) << error.what();
  }
  fake_cuda_set_capturing(stream_, false);
  pool_.reset();  // the fixture sees that nothing forbidden was asked
}

TEST_F(CudaPoolCapturesTest, PoolClosedDuringACaptureKeepsItsMemoryUntilItEnds) {
  ASSERT_TRUE(pool_->release(pool_->allocate(kBytes)));
  fake_cuda_set_capturing(stream_, true);
  pool_->close();
  EXPECT_EQ(fake_cuda_used_bytes(0), kBytes);
  EXPECT_EQ(fake_cuda_calls("cuCtxSynchronize"), 0u);
  fake_cuda_set_capturing(stream_, false);
  pool_.reset();
}

TEST_F(CudaPoolCapturesTest, DestroyedStreamsAreNotNamed) {
  MemoryPool& lane = pool_->lane(stream_);
  const Allocation fallback = lane.allocate(2 * kBytes);
  const Allocation block = lane.allocate(kBytes);
  fake_cuda_destroy_stream(stream_);
  EXPECT_TRUE(lane.release(fallback));
  EXPECT_TRUE(lane.release(block));
  EXPECT_TRUE(pool_->release(pool_->allocate(kBytes)));
  static_cast<void>(pool_->trim());
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  pool_.reset();
}

TEST_F(CudaPoolCapturesTest, NothingOfAResetDeviceIsKept) {
  const CapturedLog log;
  const StreamHandle other = fake_cuda_create_stream(0);
  MemoryPool& lane = pool_->lane(stream_);
  fake_cuda_hold_work(true);
  const Allocation last = lane.allocate(kBytes / 4);
  const Allocation pending = lane.allocate(kBytes / 4);
  ASSERT_TRUE(lane.release(lane.allocate(kBytes / 4), stream_));
  ASSERT_TRUE(lane.release(pending, other));
  ASSERT_TRUE(lane.release(lane.allocate(2 * kBytes), other));
  fake_cuda_reset_device(0);
  pool_->close();
  EXPECT_TRUE(lane.release(last));
  pool_.reset();
  int tried = 0;
  for (const auto& record : log.records()) {
    EXPECT_EQ(record.message.find("for good"), std::string::npos) << record.message;
    tried += record.message.find("give back") == std::string::npos ? 0 : 1;
  }
  EXPECT_EQ(tried, 3);  // the heaps of two lanes and a fallback
  fake_cuda_hold_work(false);
}

/// While a stream is captured that is not ordered with the default one, as PyTorch's are: nothing shows it, and a wait
/// for the whole device invalidates it.
class CudaPoolUnseenCapturesTest : public CudaPoolCapturesTest {
 protected:
  CudaPoolUnseenCapturesTest() { fake_cuda_set_capturing(captured_, true); }
  void TearDown() override {
    EXPECT_EQ(fake_cuda_calls("cuCtxSynchronize"), waits_);
    fake_cuda_set_capturing(captured_, false);
    pool_.reset();
    fake_cuda_set_capturing(kPerThreadStream, false);
    CudaPoolCapturesTest::TearDown();
  }
  void rebuild(OnExhaustion on_exhaustion) {
    PoolConfig config = quiet_config(kBytes, 1);
    config.on_exhaustion = on_exhaustion;
    pool_ = MemoryPool::create(config, std::make_shared<CudaDevice>(0, CudaDevice::Options{}, *driver_));
  }
  /// Whoever wants this memory can ask no one but the device.
  void leave_without_name() {
    MemoryPool& lane = pool_->lane(stream_);
    ASSERT_TRUE(lane.release(lane.allocate(kBytes)));
  }

  const StreamHandle captured_ = fake_cuda_create_stream(0);
  std::uint64_t waits_ = 0;
};

TEST_F(CudaPoolUnseenCapturesTest, PoolsOfTheDefaultStreamEndBehindItsEvents) {
  const Allocation last = pool_->allocate(kBytes / 2);
  ASSERT_TRUE(pool_->release(pool_->allocate(kBytes / 4)));
  pool_->close();
  EXPECT_TRUE(pool_->release(last));
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
}

TEST_F(CudaPoolUnseenCapturesTest, LanesEndBehindTheEventsOfReleasesThatNameTheirStream) {
  fake_cuda_hold_work(true);
  MemoryPool& lane = pool_->lane(stream_);
  const StreamHandle other = fake_cuda_create_stream(0);
  const Allocation first = lane.allocate(kBytes / 4);
  const Allocation second = lane.allocate(kBytes / 4);
  ASSERT_TRUE(lane.release(lane.allocate(kBytes / 4), stream_));
  pool_->close();
  EXPECT_TRUE(lane.release(first, other));
  EXPECT_TRUE(lane.release(second, stream_));
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  EXPECT_GE(fake_cuda_calls("cuEventSynchronize"), 2u);
  fake_cuda_hold_work(false);
}

TEST_F(CudaPoolUnseenCapturesTest, RequestsThatMayFallBackDoSoBeforeTheyWaitForTheDevice) {
  leave_without_name();
  const Allocation fallback = pool_->allocate(kBytes);
  EXPECT_TRUE(fallback.is_fallback());
  EXPECT_TRUE(pool_->release(fallback));
  fake_cuda_set_capturing(captured_, false);
  fake_cuda_fail("cuMemAlloc_v2", kCuOutOfMemory, 0, UINT64_MAX);
  const Allocation reclaimed = pool_->allocate(kBytes);
  EXPECT_FALSE(reclaimed.is_fallback());
  EXPECT_TRUE(pool_->release(reclaimed));
  waits_ = 1;
}

TEST_F(CudaPoolUnseenCapturesTest, FallbacksThatOnlyTheDeviceTellsOfAreLeftWhereItHasMore) {
  MemoryPool& lane = pool_->lane(stream_);
  ASSERT_TRUE(lane.release(lane.allocate(2 * kBytes)));  // pending without an event
  const Allocation more = lane.allocate(2 * kBytes);
  EXPECT_TRUE(more.is_fallback());
  EXPECT_TRUE(lane.release(more, stream_));
}

TEST_F(CudaPoolUnseenCapturesTest, EventsOfSomeLanesGoBeforeAWaitForOthers) {
  rebuild(OnExhaustion::raise);
  const StreamHandle busy = fake_cuda_create_stream(0);
  {
    MemoryPool& unnamed = pool_->lane(stream_);
    ASSERT_TRUE(unnamed.release(unnamed.allocate(kBytes / 2)));
    fake_cuda_hold_work(true);
    MemoryPool& named = pool_->lane(busy);
    ASSERT_TRUE(named.release(named.allocate(kBytes / 2), busy));
  }
  const Allocation served = pool_->allocate(kBytes / 2);
  EXPECT_TRUE(pool_->release(served));
  fake_cuda_hold_work(false);
}

TEST_F(CudaPoolUnseenCapturesTest, WhatNamesItsLastUseMovesBehindItsEventAlone) {
  rebuild(OnExhaustion::raise);
  const StreamHandle last = fake_cuda_create_stream(0);
  MemoryPool& lane = pool_->lane(stream_);
  const Allocation allocation = lane.allocate(kBytes);
  fake_cuda_hold_work(true);
  ASSERT_TRUE(lane.release(allocation, last));
  fake_cuda_destroy_stream(stream_);
  const Allocation moved = pool_->allocate(kBytes);
  EXPECT_TRUE(pool_->release(moved));
  fake_cuda_hold_work(false);
}

TEST_F(CudaPoolUnseenCapturesTest, CaptureOfTheThreadsOwnDefaultStreamIsSeen) {
  leave_without_name();
  fake_cuda_set_capturing(captured_, false);
  fake_cuda_set_capturing(kPerThreadStream, true);
  EXPECT_EQ(pool_->trim(), 0u);
  fake_cuda_set_capturing(kPerThreadStream, false);
  EXPECT_EQ(pool_->trim(), kBytes);
  waits_ = 1;
}

}  // namespace
}  // namespace tierpool::testing
