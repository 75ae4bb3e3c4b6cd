#include "tierpool/pool/installed_pools.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "support/captured_log.hpp"
#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::kGranule;
using testing::message_of;
using testing::quiet_config;

/// An installed pool stays for the life of the process, and so does its device.
class InstalledPoolsTest : public ::testing::Test {
 protected:
  InstalledPoolsTest() { installed_pools::install(kOrdinal, pool_); }
  ~InstalledPoolsTest() override {
    installed_pools::install(kOrdinal, nullptr);
    EXPECT_EQ(pool_->statistics().active_allocations, 0u);
    pool_->close();
    EXPECT_EQ(device_->reserved_bytes(), 0u);
  }

  [[nodiscard]] static PoolConfig config() {
    PoolConfig config = quiet_config(16 * kGranule, 1);
    config.magazines = true;
    return config;
  }
  [[nodiscard]] std::uint64_t allocate(std::uint64_t bytes, StreamHandle stream = kDefaultStream) {
    return installed_pools::allocate(kOrdinal, bytes, stream, outcome_);
  }

  static constexpr int kOrdinal = 5;
  std::shared_ptr<SimulatedDevice> device_ = std::make_shared<SimulatedDevice>(kGiB, kGranule);
  std::shared_ptr<MemoryPool> pool_ = MemoryPool::create(config(), device_);
  AllocationOutcome outcome_ = AllocationOutcome::served;
};

TEST_F(InstalledPoolsTest, MemoryIsFoundByItsAddressInEveryLane) {
  const StreamHandle stream = device_->simulated_streams().create_stream();
  const std::uint64_t home = allocate(1000);
  const std::uint64_t lane = allocate(1000, stream);
  const std::uint64_t fallback = allocate(17 * kGranule, stream);
  ASSERT_NE(home, 0u);
  ASSERT_NE(lane, 0u);
  ASSERT_NE(fallback, 0u);
  EXPECT_EQ(installed_pools::size_of(lane), 1024u);
  EXPECT_EQ(pool_->statistics().active_arrays, 3u);
  for (const std::uint64_t address : {lane, home, fallback}) {
    EXPECT_TRUE(installed_pools::release(address));
    EXPECT_FALSE(installed_pools::release(address));
  }
}

TEST_F(InstalledPoolsTest, RecordedStreamHoldsMemoryBack) {
  SimulatedStreams& streams = device_->simulated_streams();
  const StreamHandle stream = streams.create_stream();
  const std::uint64_t address = allocate(kGranule);
  ASSERT_TRUE(installed_pools::record_stream(address, stream));
  streams.enqueue(stream, [] {});
  ASSERT_TRUE(installed_pools::release(address));
  EXPECT_EQ(pool_->statistics().pending_bytes, kGranule);
  const std::uint64_t other = allocate(kGranule);
  EXPECT_NE(other, address);
  while (streams.advance(stream)) {
  }
  pool_->poll_pending();
  EXPECT_EQ(pool_->statistics().pending_bytes, 0u);
  EXPECT_TRUE(installed_pools::release(other));
}

TEST_F(InstalledPoolsTest, MemoryComesBackAfterAnotherPoolTookOver) {
  const std::uint64_t address = allocate(1000);
  installed_pools::install(kOrdinal, nullptr);
  EXPECT_EQ(allocate(1000), 0u);
  EXPECT_EQ(outcome_, AllocationOutcome::closed);
  EXPECT_TRUE(installed_pools::release(address));
}

TEST_F(InstalledPoolsTest, TrimReachesPoolsThatWereReplaced) {
  ASSERT_TRUE(installed_pools::release(allocate(4 * kGranule)));
  ASSERT_GT(pool_->statistics().committed_bytes, 0u);
  installed_pools::install(kOrdinal, nullptr);
  EXPECT_EQ(installed_pools::trim(), 4 * kGranule);
  EXPECT_EQ(pool_->statistics().committed_bytes, 0u);
}

TEST_F(InstalledPoolsTest, AnAllocationAndATrimThatFailAreSilent) {
  const testing::CapturedLog log;
  const StreamHandle stream = device_->simulated_streams().create_stream();
  device_->fail(DeviceCall::reserve);  // of the stream's lane
  EXPECT_EQ(allocate(1000, stream), 0u);
  EXPECT_EQ(outcome_, AllocationOutcome::out_of_memory);
  device_->recover();
  ASSERT_TRUE(installed_pools::release(allocate(kGranule)));
  device_->fail(DeviceCall::decommit);
  EXPECT_EQ(installed_pools::trim(), 0u);
  device_->recover();
  EXPECT_EQ(log.records().size(), 0u);
}

TEST_F(InstalledPoolsTest, AFractionOfTheDeviceIsRefusedWithTheRemedy) {
  installed_pools::require_whole_device(1, kOrdinal);
  const std::string message =
      message_of<std::invalid_argument>([] { installed_pools::require_whole_device(0.5, kOrdinal); });
  EXPECT_NE(message.find("device 5"), std::string::npos) << message;
  EXPECT_NE(message.find("got 0.5"), std::string::npos) << message;
  EXPECT_NE(message.find("max_bytes"), std::string::npos) << message;
}

TEST_F(InstalledPoolsTest, FailuresAreAnAddressOfZeroAndAnErrorOnRequest) {
  device_->fail(DeviceCall::commit);
  device_->fail(DeviceCall::allocate_direct);
  EXPECT_EQ(allocate(1000), 0u);
  EXPECT_THROW(installed_pools::throw_failure(kOrdinal, 1000, kDefaultStream, outcome_), OutOfMemoryError);
  device_->recover();
  EXPECT_EQ(allocate(1000, 0xdead), 0u);
  EXPECT_THROW(installed_pools::throw_failure(kOrdinal, 1000, 0xdead, outcome_), DeviceError);
  EXPECT_EQ(installed_pools::find(-1), nullptr);
  EXPECT_EQ(installed_pools::allocate(kOrdinal + 1, 1, kDefaultStream, outcome_), 0u);
  EXPECT_THROW(installed_pools::throw_failure(kOrdinal + 1, 1, kDefaultStream, outcome_), PoolClosedError);
  EXPECT_FALSE(installed_pools::release(0));
  EXPECT_FALSE(installed_pools::record_stream(123, kDefaultStream));
  EXPECT_EQ(installed_pools::size_of(123), 0u);
  EXPECT_NE(message_of<std::invalid_argument>([] { installed_pools::install(64, nullptr); }).find("got 64"),
            std::string::npos);
}

}  // namespace
}  // namespace tierpool
