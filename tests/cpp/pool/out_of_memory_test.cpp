#include "tierpool/pool/out_of_memory.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "device/cuda_fixture.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/device/cuda_device.hpp"

namespace tierpool {
namespace {

class OutOfMemoryTest : public testing::FakeCudaTest {
 protected:
  [[nodiscard]] std::string message(std::uint64_t bytes) {
    return testing::message_of<OutOfMemoryError>([&] { static_cast<void>(pool_->allocate(bytes)); });
  }

  void TearDown() override {
    pool_.reset();
    FakeCudaTest::TearDown();
  }

  const std::shared_ptr<Device> device_ = testing::make_fake_device<CudaDevice>();
  std::shared_ptr<MemoryPool> pool_ = MemoryPool::create(testing::quiet_config(16 * kMiB, 1), device_);
};

TEST_F(OutOfMemoryTest, FailureThatIsNoShortageIsTold) {
  testing::fake_cuda_fail("cuMemCreate", 999, 0, 1000);
  testing::fake_cuda_fail("cuMemAlloc_v2", 999, 0, 1000);
  const std::string refused = message(kMiB);
  EXPECT_NE(refused.find("increase heap_size_mb"), std::string::npos) << refused;
  EXPECT_NE(refused.find("for no shortage"), std::string::npos) << refused;
  EXPECT_NE(refused.find("(999)"), std::string::npos) << refused;
}

TEST_F(OutOfMemoryTest, TellsWhatThePoolHasAndWhatTheDeviceHas) {
  // The device has 1 GiB, of which another pool takes all but 8 MiB; this one has addresses for 16 MiB.
  const auto other = MemoryPool::create(testing::quiet_config(testing::kFakeCudaBytes, 1), device_);
  const Allocation taken = other->allocate(testing::kFakeCudaBytes - 8 * kMiB);
  const Allocation kept = pool_->allocate(2 * kMiB);
  EXPECT_EQ(message(12 * kMiB),
            "out of memory: requested 12582912 bytes (12MB), largest free block 14MB, free 14MB, fragmentation "
            "0.0%; device 'cuda:0' has 6MB free of 1024MB; release buffers, or what else holds memory of the "
            "device");
  EXPECT_NE(message(2 * testing::kFakeCudaBytes).find("MB; ask for less than the device has in all"),
            std::string::npos);
  EXPECT_TRUE(pool_->release(kept));
  EXPECT_TRUE(other->release(taken));
}

TEST_F(OutOfMemoryTest, OfAPoolThatMayNotFallBackTellsTheDevicesOnlyWhereItWasAsked) {
  PoolConfig config = testing::quiet_config(16 * kMiB, 1);
  config.on_exhaustion = OnExhaustion::raise;
  pool_ = MemoryPool::create(config, device_);
  const Allocation first = pool_->allocate(4 * kMiB);
  const Allocation second = pool_->allocate(4 * kMiB);
  EXPECT_TRUE(pool_->release(first));
  EXPECT_EQ(message(12 * kMiB),
            "out of memory: requested 12582912 bytes (12MB), largest free block 8MB, free 12MB, fragmentation "
            "33.3%; increase heap_size_mb or num_heaps, or release buffers, or set on_exhaustion='fallback'");
  testing::fake_cuda_fail("cuMemCreate", kCuOutOfMemory, 0, 1000);
  EXPECT_NE(message(8 * kMiB).find("device 'cuda:0' has "), std::string::npos);
  EXPECT_TRUE(pool_->release(second));
}

TEST_F(OutOfMemoryTest, ADeviceThatDoesNotTellIsLeftOut) {
  testing::fake_cuda_fail("cuMemGetInfo_v2", 999, 0, 1000);
  const std::string text = message(2 * testing::kFakeCudaBytes);
  EXPECT_EQ(text.find("device 'cuda:0' has"), std::string::npos) << text;
  EXPECT_NE(text.find("largest free block 16MB"), std::string::npos) << text;
}

TEST_F(OutOfMemoryTest, ShortageIsNotTakenForAFailure) {
  EXPECT_EQ(message(2 * testing::kFakeCudaBytes).find("no shortage"), std::string::npos);
}

}  // namespace
}  // namespace tierpool
