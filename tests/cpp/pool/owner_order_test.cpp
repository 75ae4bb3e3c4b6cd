// Whose work a copy or a consumer has to follow, on streams that stand still until something waits for them.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "support/pool_fixture.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/pool/buffer.hpp"
#include "tierpool/pool/memory_copy.hpp"

namespace tierpool {
namespace {

using testing::kGranule;

class OwnerOrderTest : public testing::PoolTest {
 protected:
  OwnerOrderTest() { build(16 * kGranule, 1); }

  [[nodiscard]] SimulatedStreams& streams() { return device_->simulated_streams(); }
  /// Memory of a stream whose work, not yet run, has still to write it.
  [[nodiscard]] Buffer allocate_unwritten(StreamHandle stream) {
    MemoryPool& lane = pool_->lane(stream);
    Buffer buffer(lane, lane.allocate(kGranule));
    streams().enqueue(stream, [written = written_] { *written = true; });
    return buffer;
  }
  /// The same on the default stream of a thread that has ended since.
  [[nodiscard]] Buffer allocate_on_another_thread() {
    Buffer buffer;
    std::thread([&] { buffer = allocate_unwritten(kPerThreadStream); }).join();
    return buffer;
  }
  static void copy(const Buffer& destination, const Buffer& source) {
    copy_memory({.address = destination.allocation().address, .pool = &destination.pool()},
                {.address = source.allocation().address, .pool = &source.pool()}, kGranule, std::nullopt);
  }
  /// Whether `stream` can do nothing before the owner's work is done.
  [[nodiscard]] bool follows(StreamHandle stream) {
    const auto too_early = std::make_shared<bool>(false);
    streams().enqueue(stream, [too_early, written = written_] { *too_early = !*written; });
    static_cast<void>(streams().synchronize_stream(stream));
    return !*too_early;
  }

  // Shared with work that may run when the test has ended.
  const std::shared_ptr<bool> written_ = std::make_shared<bool>(false);
  const StreamHandle a_ = device_->simulated_streams().create_stream();
  const StreamHandle b_ = device_->simulated_streams().create_stream();
};

TEST_F(OwnerOrderTest, ACopyFollowsTheStreamsOfBothEnds) {
  for (const bool is_source : {false, true}) {
    *written_ = false;
    const Buffer unwritten = allocate_unwritten(a_);
    const Buffer other(pool_->lane(b_), pool_->lane(b_).allocate(kGranule));
    copy(is_source ? other : unwritten, is_source ? unwritten : other);
    EXPECT_TRUE(*written_) << is_source;
  }
}

TEST_F(OwnerOrderTest, ACopyFollowsAnotherThreadsDefaultStream) {
  for (const bool is_source : {false, true}) {
    *written_ = false;
    const Buffer unwritten = allocate_on_another_thread();
    MemoryPool& lane = pool_->lane(kPerThreadStream);
    const Buffer other(lane, lane.allocate(kGranule));
    copy(is_source ? other : unwritten, is_source ? unwritten : other);
    EXPECT_TRUE(*written_) << is_source;
  }
}

TEST_F(OwnerOrderTest, ACopyFollowsAStreamThatIsGone) {
  const Buffer unwritten = allocate_unwritten(a_);
  streams().destroy_stream(a_);
  const StreamHandle again = streams().create_stream();
  ASSERT_EQ(again, a_);  // another stream by the same name
  const Buffer other(*pool_, pool_->allocate(kGranule));
  copy(unwritten, other);
  EXPECT_TRUE(*written_);
}

TEST_F(OwnerOrderTest, AConsumersStreamFollowsTheOwners) {
  const Buffer unwritten = allocate_unwritten(a_);
  unwritten.pool().order_after_own(b_);
  EXPECT_FALSE(*written_);  // nobody has waited
  EXPECT_TRUE(follows(b_));
}

TEST_F(OwnerOrderTest, AConsumersStreamFollowsAnotherThreadsDefaultStream) {
  const Buffer unwritten = allocate_on_another_thread();
  EXPECT_EQ(unwritten.pool().stream_here(), kDefaultStream);
  unwritten.pool().order_after_own(kPerThreadStream);
  EXPECT_TRUE(follows(kPerThreadStream));
}

TEST_F(OwnerOrderTest, TheOwnersStreamFollowsItselfWithoutAnEvent) {
  const Buffer unwritten = allocate_unwritten(kPerThreadStream);
  EXPECT_EQ(unwritten.pool().stream_here(), kPerThreadStream);
  unwritten.pool().order_after_own(kPerThreadStream);
  EXPECT_EQ(streams().call_count(StreamCall::record_event), 0u);
  EXPECT_FALSE(*written_);
}

TEST_F(OwnerOrderTest, WhatCannotBeOrderedIsRefused) {
  const Buffer unwritten = allocate_on_another_thread();
  streams().fail(StreamCall::synchronize);
  EXPECT_NE(testing::message_of<DeviceError>([&] { unwritten.pool().order_after_own(b_); }).find("another thread's"),
            std::string::npos);
  streams().recover();
  EXPECT_THROW(unwritten.pool().order_after_own(0xdead), DeviceError);
}

}  // namespace
}  // namespace tierpool
