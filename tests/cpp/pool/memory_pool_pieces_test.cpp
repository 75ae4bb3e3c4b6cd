// What a pool counts against what its driver holds, where memory comes in pieces or whole.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "device/cuda_fixture.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"

namespace tierpool::testing {
namespace {

class MemoryPoolPiecesTest : public FakeCudaTest {
 protected:
  static constexpr std::uint64_t kHeapBytes = 512 * kMiB;  // committed at once it comes in pieces of 4 granules
  static constexpr std::uint64_t kBlockBytes = 2 * kMiB;

  MemoryPool& build(OnExhaustion on_exhaustion = OnExhaustion::raise) {
    PoolConfig config = quiet_config(kHeapBytes, 1);
    config.on_exhaustion = on_exhaustion;
    pool_ = MemoryPool::create(config, std::make_shared<CudaDevice>(0, CudaDevice::Options{}, *driver_));
    return *pool_;
  }
  /// Commits the whole heap and leaves a granule live in every so many.
  void leave_every(std::uint64_t granules) {
    ASSERT_TRUE(pool_->release(pool_->allocate(kHeapBytes)));
    std::vector<Allocation> all;
    for (std::uint64_t bytes = 0; bytes < kHeapBytes; bytes += kBlockBytes) {
      all.push_back(pool_->allocate(kBlockBytes));
    }
    for (std::uint64_t index = 0; index < all.size(); ++index) {
      if (index % granules == 0) {
        live_.push_back(all[index]);
      } else {
        ASSERT_TRUE(pool_->release(all[index]));
      }
    }
  }
  MemoryPool& build_without_virtual_memory(OnExhaustion on_exhaustion) {
    PoolConfig config = quiet_config(8 * kMiB, 2);
    config.on_exhaustion = on_exhaustion;
    pool_ = MemoryPool::create(config, std::make_shared<CudaDevice>(1, CudaDevice::Options{}, *driver_));
    return *pool_;
  }
  void expect_truth() {
    EXPECT_EQ(pool_->statistics().committed_bytes, fake_cuda_used_bytes(0));
    EXPECT_EQ(pool_->statistics().reserved_bytes, fake_cuda_used_bytes(0));
  }
  void TearDown() override {
    for (const Allocation& allocation : live_) {
      EXPECT_TRUE(pool_->release(allocation));
    }
    pool_.reset();
    FakeCudaTest::TearDown();
  }

  std::shared_ptr<MemoryPool> pool_;
  std::vector<Allocation> live_;
};

TEST_F(MemoryPoolPiecesTest, TrimSaysWhatTheDriverGotBack) {
  for (const std::uint64_t granules : {4U, 6U, 16U}) {
    SCOPED_TRACE(granules);
    build();
    leave_every(granules);
    const std::uint64_t before = fake_cuda_used_bytes(0);
    const std::uint64_t trimmed = pool_->trim();
    EXPECT_EQ(trimmed, before - fake_cuda_used_bytes(0));
    expect_truth();
    // What stayed serves again, without a piece more.
    const std::uint64_t held = fake_cuda_used_bytes(0);
    const Allocation again = pool_->allocate(kBlockBytes);
    EXPECT_EQ(fake_cuda_used_bytes(0), held);
    EXPECT_TRUE(pool_->release(again));
    for (; !live_.empty(); live_.pop_back()) {
      ASSERT_TRUE(pool_->release(live_.back()));
    }
    EXPECT_EQ(pool_->trim(), held);
    expect_truth();
    EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  }
}

TEST_F(MemoryPoolPiecesTest, AllLanesStayWithinTheSizeOfOne) {
  const StreamHandle stream = fake_cuda_create_stream(0);
  build();
  leave_every(16);
  MemoryPool& lane = pool_->lane(stream);
  EXPECT_THROW(static_cast<void>(lane.allocate(kHeapBytes - 100 * kMiB)), OutOfMemoryError);  // a quarter is in use
  expect_truth();
  const Allocation served = lane.allocate(kHeapBytes - 150 * kMiB);
  EXPECT_LE(fake_cuda_used_bytes(0), kHeapBytes);
  expect_truth();
  EXPECT_TRUE(lane.release(served, stream));
}

TEST_F(MemoryPoolPiecesTest, MemoryTheDriverKeepsStaysCounted) {
  build();
  ASSERT_TRUE(pool_->release(pool_->allocate(kHeapBytes)));
  fake_cuda_fail("cuMemUnmap", 999, 0, 1);
  EXPECT_EQ(pool_->trim(false), 0u);
  expect_truth();
  EXPECT_EQ(pool_->trim(), kHeapBytes);
  expect_truth();
}

TEST_F(MemoryPoolPiecesTest, WithoutVirtualMemoryTheFirstLaneHasAllHeaps) {
  MemoryPool& pool = build_without_virtual_memory(OnExhaustion::fallback);
  const std::uint64_t heaps_bytes = fake_cuda_used_bytes(1);
  EXPECT_GE(heaps_bytes, 16 * kMiB);
  EXPECT_EQ(pool.statistics().reserved_bytes, 16 * kMiB) << "all of it is taken with the addresses";
  EXPECT_EQ(pool.statistics().committed_bytes, 16 * kMiB);
  const Allocation first = pool.allocate(kBlockBytes);
  EXPECT_FALSE(first.is_fallback());
  for (int index = 0; index < 3; ++index) {
    const StreamHandle stream = fake_cuda_create_stream(1);
    MemoryPool& lane = pool.lane(stream);
    const Allocation further = lane.allocate(kBlockBytes);
    EXPECT_TRUE(further.is_fallback());
    EXPECT_EQ(fake_cuda_used_bytes(1), heaps_bytes + kBlockBytes);
    EXPECT_EQ(pool.statistics().reserved_bytes, 16 * kMiB + kBlockBytes);
    EXPECT_EQ(lane.try_allocate(1), std::nullopt);
    EXPECT_TRUE(lane.release(further, stream));
    EXPECT_EQ(fake_cuda_used_bytes(1), heaps_bytes);
  }
  EXPECT_EQ(pool.statistics().capacity_bytes, 16 * kMiB);
  expect_identities(pool);
  EXPECT_TRUE(pool.release(first));
  EXPECT_EQ(pool.trim(false), 0u);
  EXPECT_EQ(pool.statistics().reserved_bytes, 16 * kMiB);
}

TEST_F(MemoryPoolPiecesTest, LanesWithoutHeapsSayWhyTheyCannotServe) {
  MemoryPool& pool = build_without_virtual_memory(OnExhaustion::raise);
  MemoryPool& lane = pool.lane(fake_cuda_create_stream(1));
  const std::string message = message_of<OutOfMemoryError>([&] { static_cast<void>(lane.allocate(kBlockBytes)); });
  EXPECT_NE(message.find("only the default stream"), std::string::npos) << message;
  EXPECT_NE(message.find("on_exhaustion='fallback'"), std::string::npos) << message;
}

TEST_F(MemoryPoolPiecesTest, LanesWithoutHeapsWaitForNothingBeforeTheyFallBack) {
  MemoryPool& pool = build_without_virtual_memory(OnExhaustion::fallback);
  const StreamHandle stream = fake_cuda_create_stream(1);
  MemoryPool& lane = pool.lane(stream);
  fake_cuda_hold_work(true);
  const Allocation first = lane.allocate(kBlockBytes);
  ASSERT_TRUE(lane.release(first, stream));
  const Allocation second = lane.allocate(kBlockBytes);
  for (const char* call : {"cuEventSynchronize", "cuStreamSynchronize", "cuCtxSynchronize"}) {
    EXPECT_EQ(fake_cuda_calls(call), 0u) << call;
  }
  fake_cuda_hold_work(false);
  EXPECT_TRUE(lane.release(second, stream));
}

TEST_F(MemoryPoolPiecesTest, PinnedMemoryIsCountedWholeAsItIsTaken) {
  const auto pinned = std::make_shared<PinnedHostDevice>(0, PinnedHostDevice::Options{}, *driver_);
  const auto pool = MemoryPool::create(quiet_config(8 * kMiB, 2), pinned);
  const Allocation first = pool->allocate(kBlockBytes);
  const Allocation second = pool->allocate(kBlockBytes);
  EXPECT_EQ(pool->statistics().reserved_bytes, fake_cuda_pinned_bytes());
  ASSERT_TRUE(pool->release(second));
  const std::uint64_t held = fake_cuda_pinned_bytes();
  const std::uint64_t trimmed = pool->trim();
  EXPECT_EQ(trimmed, held - fake_cuda_pinned_bytes());
  EXPECT_EQ(pool->statistics().reserved_bytes, fake_cuda_pinned_bytes());
  ASSERT_TRUE(pool->release(first));
  EXPECT_EQ(trimmed + pool->trim(), held);
  EXPECT_EQ(pool->statistics().reserved_bytes, 0u);
  EXPECT_EQ(fake_cuda_pinned_bytes(), 0u);
}

}  // namespace
}  // namespace tierpool::testing
