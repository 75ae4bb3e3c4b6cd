#include "tierpool/pool/buffer.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>

#include "support/pool_fixture.hpp"
#include "tierpool/base/owner_lock.hpp"
#include "tierpool/device/host_device.hpp"

namespace tierpool {
namespace {

class BufferTest : public testing::PoolTest {
 protected:
  void SetUp() override { build(kMiB, 1); }
  [[nodiscard]] Buffer make(std::uint64_t bytes = 1000) { return {*pool_, pool_->allocate(bytes)}; }
  [[nodiscard]] std::uint64_t live() const { return pool_->statistics().active_allocations; }
};

TEST_F(BufferTest, MemoryReturnsWhenTheBufferGoes) {
  {
    const Buffer buffer = make();
    EXPECT_TRUE(buffer);
    EXPECT_EQ(live(), 1u);
  }
  EXPECT_EQ(live(), 0u);
  EXPECT_EQ(pool_->statistics().total_deallocations, 1u);
}

TEST_F(BufferTest, ReleaseAtOnceIsTheMagazinesOrNothing) {
  Buffer without_magazine = make();
  EXPECT_FALSE(without_magazine.release_at_once());
  EXPECT_TRUE(without_magazine);
  EXPECT_FALSE(without_magazine.may_wait());
  without_magazine.release();
  EXPECT_TRUE(without_magazine.release_at_once());  // nothing left to do

  build(kMiB, 1, [](PoolConfig& config) { config.magazines = true; });
  make().release();  // makes the magazine
  Buffer buffer = make();
  Buffer last = make();
  const Buffer fallback = make(2 * kMiB);
  EXPECT_TRUE(fallback.may_wait());
  EXPECT_EQ(buffer.release_at_once(), OwnerLock::is_fast());
  buffer.release();
  EXPECT_EQ(live(), 2u);
  pool_->close();
  EXPECT_FALSE(last.release_at_once());
  EXPECT_TRUE(last.may_wait());
}

TEST_F(BufferTest, MemoryOfADeviceWithoutStreamsRecordsNone) {
  const auto pool = MemoryPool::create(testing::quiet_config(kMiB, 1), std::make_shared<HostDevice>());
  Buffer buffer(*pool, pool->allocate(1000));
  const std::uint32_t generation = buffer.allocation().generation;
  buffer.record_stream(kDefaultStream);
  EXPECT_EQ(buffer.allocation().generation, generation);
  EXPECT_NE(buffer.allocation().magazine, kManyStreams);
}

TEST_F(BufferTest, ReleaseGivesBackOnce) {
  Buffer buffer = make();
  buffer.release();
  EXPECT_FALSE(buffer);
  buffer.release();
  EXPECT_EQ(pool_->statistics().total_deallocations, 1u);
}

TEST_F(BufferTest, MovedFromBufferHoldsNothing) {
  Buffer first = make();
  const std::uint64_t address = first.allocation().address;
  const Buffer second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.allocation().address, address);
  EXPECT_EQ(live(), 1u);
}

TEST_F(BufferTest, AssignmentReleasesWhatWasHeld) {
  Buffer kept = make();
  Buffer other = make(5000);
  const std::uint64_t address = other.allocation().address;
  kept = std::move(other);
  EXPECT_EQ(live(), 1u);
  EXPECT_EQ(kept.allocation().address, address);
  Buffer& self = kept;
  kept = std::move(self);
  EXPECT_TRUE(kept);
  EXPECT_EQ(live(), 1u);
}

TEST_F(BufferTest, EmptyBufferReleasesNothing) {
  Buffer buffer;
  EXPECT_FALSE(buffer);
  buffer.release();
  EXPECT_FALSE(buffer);
}

TEST_F(BufferTest, BufferKeepsItsPoolAlive) {
  {
    const Buffer buffer = make();
    pool_.reset();
    EXPECT_EQ(device_->reserved_bytes(), kMiB);
    EXPECT_EQ(buffer.pool().statistics().active_allocations, 1u);
  }
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

TEST_F(BufferTest, BufferMayGoOnAnotherThreadAfterClose) {
  auto buffer = std::make_unique<Buffer>(make());
  pool_->close();
  std::thread([&buffer] { buffer.reset(); }).join();
  EXPECT_EQ(live(), 0u);
  EXPECT_EQ(device_->reserved_bytes(), 0u);
}

}  // namespace
}  // namespace tierpool
