// What a pool puts in order on a driver that runs every stream's work as late as it may.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "device/cuda_fixture.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"

namespace tierpool::testing {
namespace {

class CudaPoolOrderTest : public FakeCudaTest {
 protected:
  static constexpr std::uint64_t kBytes = std::uint64_t{4} << 20;

  CudaPoolOrderTest() {
    fill(first_, 1);
    fill(second_, 2);
    fake_cuda_hold_work(true);
  }
  void TearDown() override {
    EXPECT_TRUE(streams().synchronize_device());
    pool_.reset();
    EXPECT_TRUE(pinned_->release(first_) && pinned_->release(second_));
    pinned_.reset();
    FakeCudaTest::TearDown();
  }

  static void fill(const Allocation& allocation, int value) {
    std::memset(pointer_at(allocation.address), value, kBytes);
  }
  /// Has a stream write all over memory, when its turn comes.
  void write(StreamHandle stream, const Allocation& target, const Allocation& source) {
    streams().copy_async(target.address, source.address, kBytes, stream);
  }
  [[nodiscard]] static int last_byte(const Allocation& allocation) {
    return *static_cast<const unsigned char*>(pointer_at(allocation.address + kBytes - 1));
  }
  [[nodiscard]] DeviceStreams& streams() { return *pool_->device().streams(); }

  [[nodiscard]] static std::shared_ptr<MemoryPool> make_pool(std::uint64_t heap_bytes, std::shared_ptr<Device> device) {
    PoolConfig config = quiet_config(heap_bytes, 1);
    config.on_exhaustion = OnExhaustion::raise;
    return MemoryPool::create(config, std::move(device));
  }

  std::shared_ptr<MemoryPool> pool_ =
      make_pool(kBytes, std::make_shared<CudaDevice>(0, CudaDevice::Options{}, *driver_));
  std::shared_ptr<MemoryPool> pinned_ =
      make_pool(2 * kBytes, std::make_shared<PinnedHostDevice>(0, PinnedHostDevice::Options{}, *driver_));
  const Allocation first_ = pinned_->allocate(kBytes);
  const Allocation second_ = pinned_->allocate(kBytes);
  const StreamHandle a_ = fake_cuda_create_stream(0);
  const StreamHandle b_ = fake_cuda_create_stream(0);
};

TEST_F(CudaPoolOrderTest, LaneThatTakesItsPendingMemoryBackFollowsTheStreamThatUsedIt) {
  MemoryPool& lane = pool_->lane(a_);
  const Allocation before = lane.allocate(kBytes);
  write(b_, before, first_);
  ASSERT_TRUE(lane.release(before, b_));
  const Allocation after = lane.allocate(kBytes);
  ASSERT_EQ(after.address, before.address);
  EXPECT_EQ(last_byte(after), 0) << "nobody has waited yet";
  write(a_, after, second_);
  EXPECT_TRUE(streams().synchronize_stream(a_));
  EXPECT_TRUE(streams().synchronize_stream(b_));
  EXPECT_EQ(last_byte(after), 2);
  EXPECT_TRUE(lane.release(after, a_));
}

TEST_F(CudaPoolOrderTest, MemoryPendingOnAnotherLaneMovesWhenItsStreamHasDoneWithIt) {
  MemoryPool& from = pool_->lane(b_);
  const Allocation before = from.allocate(kBytes);
  write(kDefaultStream, before, first_);
  ASSERT_TRUE(from.release(before, kDefaultStream));
  MemoryPool& to = pool_->lane(a_);
  const Allocation after = to.allocate(kBytes);  // the granules are unmapped below `before`, which nothing may use then
  write(a_, after, second_);
  EXPECT_TRUE(streams().synchronize_device());
  EXPECT_EQ(last_byte(after), 2);
  EXPECT_TRUE(to.release(after, a_));
}

TEST_F(CudaPoolOrderTest, StreamPutBehindALaneFollowsItsWork) {
  MemoryPool& lane = pool_->lane(a_);
  const Allocation memory = lane.allocate(kBytes);
  write(a_, memory, first_);
  lane.order_after_own(b_);
  write(b_, memory, second_);
  EXPECT_TRUE(streams().synchronize_stream(b_));
  EXPECT_TRUE(streams().synchronize_stream(a_));
  EXPECT_EQ(last_byte(memory), 2);
  EXPECT_TRUE(lane.release(memory, b_));
}

}  // namespace
}  // namespace tierpool::testing
