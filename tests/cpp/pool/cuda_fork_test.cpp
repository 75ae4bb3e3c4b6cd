// A forked child has a copy of what a pool knows, but not the device: nothing is handed out there, and no call reaches
// the driver.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "device/cuda_fixture.hpp"
#include "support/child_process.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"
#include "tierpool/device/pinned_host_device.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_copy.hpp"

namespace tierpool {
namespace {

using testing::fake_cuda_calls;

/// Whether `call` throws DeviceError that tells what to do.
[[nodiscard]] bool is_refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const DeviceError& error) {
    return std::string(error.what()).find("forked child; start processes that use it by spawn") != std::string::npos;
  } catch (...) {
    return false;
  }
  return false;
}

std::shared_ptr<StagingRing> no_staging(Device& /*device*/) { throw std::logic_error("asked for staging"); }

class CudaForkTest : public testing::FakeCudaTest, public ::testing::WithParamInterface<bool> {
 protected:
  void TearDown() override {
    pool_.reset();
    FakeCudaTest::TearDown();
  }
  [[nodiscard]] std::shared_ptr<MemoryPool> make_pool() const {
    PoolConfig config = testing::quiet_config(16 * kMiB, 1);
    config.magazines = true;
    return MemoryPool::create(config, make_device());
  }
  [[nodiscard]] std::shared_ptr<Device> make_device() const {
    if (GetParam()) {
      return std::make_shared<PinnedHostDevice>(0, PinnedHostDeviceOptions{}, *driver_);
    }
    return std::make_shared<CudaDevice>(0, CudaDeviceOptions{}, *driver_);
  }

  std::shared_ptr<MemoryPool> pool_ = make_pool();
  const StreamHandle stream_ = testing::fake_cuda_create_stream(0);
};

TEST_P(CudaForkTest, ChildIsServedNothing) {
  // What would serve it: magazines, warm heaps, a lane's.
  static_cast<void>(pool_->release(pool_->allocate(1000)));
  MemoryPool& lane = pool_->lane(stream_);
  static_cast<void>(lane.release(lane.allocate(1000)));
  const int refused = testing::exit_status_of_child([&] {
    int count = 0;
    const std::vector<std::function<void()>> calls{
        [&] { static_cast<void>(pool_->allocate(1000)); },
        [&] { static_cast<void>(pool_->try_allocate(1000)); },
        [&] { static_cast<void>(pool_->allocate(64 * kMiB)); },
        [&] {
          static_cast<void>(pool_->allocate_batch(std::vector<std::uint64_t>{8, 1000}));
        },
        [&] { static_cast<void>(lane.allocate(1000)); },
        [&] { pool_->warm_up(std::vector<std::uint64_t>{kMiB}); },
    };
    for (const auto& call : calls) {
      count += is_refused(call) ? 1 : 0;
    }
    return count;
  });
  EXPECT_EQ(refused, 6);
  EXPECT_TRUE(pool_->release(pool_->allocate(1000)));  // the parent is served as before
}

TEST_P(CudaForkTest, ChildCopiesNothing) {
  const Buffer buffer(*pool_, pool_->allocate(1000));
  std::vector<unsigned char> bytes(1000);
  const CopyEnd own{.address = buffer.allocation().address, .pool = pool_.get()};
  const CopyEnd other{.address = address_of(bytes.data())};
  const int refused = testing::exit_status_of_child([&] {
    int count = 0;
    for (const std::optional<StreamHandle> stream : {std::optional<StreamHandle>(), std::optional(stream_)}) {
      count += is_refused([&] { copy_memory(own, other, 1000, stream, no_staging); }) ? 1 : 0;
      count += is_refused([&] { copy_memory(other, own, 1000, stream, no_staging); }) ? 1 : 0;
      count += is_refused([&] { copy_memory(own, own, 1000, stream, no_staging); }) ? 1 : 0;
    }
    return count;
  });
  EXPECT_EQ(refused, 6);
}

TEST_P(CudaForkTest, ChildGivesBackAndDropsWithoutTheDriver) {
  const Allocation plain = pool_->allocate(1000);
  const Allocation fallback = pool_->allocate(64 * kMiB);
  Allocation recorded = pool_->allocate(1000);
  ASSERT_TRUE(pool_->record_stream(recorded, stream_));
  const Allocation behind = pool_->allocate(1000);
  MemoryPool& lane = pool_->lane(stream_);
  const Allocation of_lane = lane.allocate(1000);
  testing::fake_cuda_hold_work(true);
  static_cast<void>(pool_->release(pool_->allocate(1000), stream_));  // pending over the fork
  EXPECT_EQ(testing::exit_status_of_child([&] {
              const std::uint64_t calls = fake_cuda_calls("cuCtxPushCurrent_v2");
              const bool released = pool_->release(plain) && pool_->release(fallback) && pool_->release(recorded) &&
                                    pool_->release(behind, stream_) && lane.release(of_lane);
              const bool was_live = pool_->statistics().active_allocations == 0;
              pool_->trim();
              pool_->close();
              pool_.reset();
              return released && was_live && fake_cuda_calls("cuCtxPushCurrent_v2") == calls ? 0 : 1;
            }),
            0);
  testing::fake_cuda_hold_work(false);
  EXPECT_TRUE(pool_->release(plain) && pool_->release(fallback) && pool_->release(recorded) &&
              pool_->release(behind, stream_) && lane.release(of_lane));
}

INSTANTIATE_TEST_SUITE_P(Devices, CudaForkTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "pinned" : "cuda"; });

}  // namespace
}  // namespace tierpool
