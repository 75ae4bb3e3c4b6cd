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

  std::shared_ptr<MemoryPool> pool_ =
      MemoryPool::create(testing::quiet_config(16 * kMiB, 1), testing::make_fake_device<CudaDevice>());
};

TEST_F(OutOfMemoryTest, FailureThatIsNoShortageIsTold) {
  testing::fake_cuda_fail("cuMemCreate", 999, 0, 1000);
  testing::fake_cuda_fail("cuMemAlloc_v2", 999, 0, 1000);
  const std::string refused = message(kMiB);
  EXPECT_NE(refused.find("increase heap_size_mb"), std::string::npos) << refused;
  EXPECT_NE(refused.find("for no shortage"), std::string::npos) << refused;
  EXPECT_NE(refused.find("(999)"), std::string::npos) << refused;
}

TEST_F(OutOfMemoryTest, ShortageIsNotTakenForAFailure) {
  EXPECT_EQ(message(2 * testing::kFakeCudaBytes).find("no shortage"), std::string::npos);
}

}  // namespace
}  // namespace tierpool
