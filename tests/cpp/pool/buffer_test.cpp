#include "tierpool/pool/buffer.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>

#include "support/pool_fixture.hpp"

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
