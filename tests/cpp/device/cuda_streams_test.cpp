#include "tierpool/device/cuda_streams.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <thread>

#include "device/cuda_fixture.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_device.hpp"

namespace tierpool::testing {
namespace {

class CudaStreamsTest : public FakeCudaTest {
 protected:
  CudaContext context_{*driver_, 0};
  CudaStreams streams_{context_};
  const StreamHandle stream_ = fake_cuda_create_stream(0);
};

TEST_F(CudaStreamsTest, EventsArePendingUntilTheirStreamComesThere) {
  const EventHandle event = streams_.create_event();
  ASSERT_NE(event, kNoEvent);
  fake_cuda_hold_work(true);
  for (const StreamHandle stream : {kDefaultStream, kLegacyStream, kPerThreadStream, stream_}) {
    ASSERT_TRUE(streams_.record_event(event, stream));
    EXPECT_EQ(streams_.query_event(event), EventState::pending);
    EXPECT_TRUE(streams_.wait_event(stream_, event));
    EXPECT_TRUE(streams_.synchronize_event(event));
    EXPECT_EQ(streams_.query_event(event), EventState::complete);
  }
  ASSERT_TRUE(streams_.record_event(event, stream_));
  EXPECT_TRUE(streams_.synchronize_stream(stream_));
  EXPECT_EQ(streams_.query_event(event), EventState::complete);
  ASSERT_TRUE(streams_.record_event(event, stream_));
  EXPECT_TRUE(streams_.synchronize_device());
  EXPECT_EQ(streams_.query_event(event), EventState::complete);
  streams_.destroy_event(event);
}

TEST_F(CudaStreamsTest, IdsTellStreamsThreadsAndNamesOfTheDefaultApart) {
  const StreamHandle other = fake_cuda_create_stream(0);
  EXPECT_NE(streams_.stream_id(stream_), 0u);
  EXPECT_NE(streams_.stream_id(stream_), streams_.stream_id(other));
  EXPECT_EQ(streams_.stream_id(kDefaultStream), streams_.stream_id(kLegacyStream));
  const std::uint64_t mine = streams_.stream_id(kPerThreadStream);
  std::uint64_t theirs = 0;
  std::thread([&] { theirs = streams_.stream_id(kPerThreadStream); }).join();
  EXPECT_NE(mine, theirs);
  EXPECT_EQ(mine, streams_.stream_id(kPerThreadStream));
}

TEST_F(CudaStreamsTest, StreamsOfOthersAndDestroyedOnesAreRefused) {
  const StreamHandle foreign = fake_cuda_create_stream(1);
  streams_.require_stream(kDefaultStream);
  streams_.require_stream(kPerThreadStream);
  streams_.require_stream(stream_);
  try {
    streams_.require_stream(foreign);
    ADD_FAILURE() << "took a stream of another device";
  } catch (const DeviceError& error) {
    EXPECT_EQ(std::string(error.what()), "Cannot use stream " + std::to_string(foreign) +
                                             " on cuda:0: it belongs to another device or context; pass a stream of "
                                             "this device");
  }
  const EventHandle event = streams_.create_event();
  EXPECT_FALSE(streams_.record_event(event, foreign));
  EXPECT_FALSE(streams_.wait_event(foreign, event));
  EXPECT_FALSE(streams_.synchronize_stream(foreign));
  fake_cuda_destroy_stream(stream_);
  EXPECT_THROW(streams_.require_stream(stream_), DeviceError);
  streams_.destroy_event(event);
}

TEST_F(CudaStreamsTest, AskingForAStreamLeavesItsCaptureValid) {
  fake_cuda_set_capturing(stream_, true);
  streams_.require_stream(stream_);  // the fixture sees that nothing forbidden was asked
  fake_cuda_set_capturing(stream_, false);
}

TEST_F(CudaStreamsTest, ACaptureIsSeenAlsoWhereTheQuestionIsForbidden) {
  EXPECT_FALSE(streams_.is_capturing(stream_));
  fake_cuda_set_capturing(stream_, true);
  EXPECT_TRUE(streams_.is_capturing(stream_));
  EXPECT_FALSE(streams_.is_capturing(kDefaultStream));
  fake_cuda_fail("cuStreamIsCapturing", kCuStreamCaptureImplicit, 0, 1);
  EXPECT_TRUE(streams_.is_capturing(kDefaultStream));
}

TEST_F(CudaStreamsTest, TheDeviceIsNotWaitedForDuringACaptureThatCanBeSeen) {
  fake_cuda_make_blocking(stream_);
  fake_cuda_set_capturing(stream_, true);
  EXPECT_TRUE(streams_.is_capturing(kDefaultStream));
  EXPECT_FALSE(streams_.synchronize_device());
  EXPECT_EQ(fake_cuda_calls("cuCtxSynchronize"), 0u);
  fake_cuda_set_capturing(stream_, false);
  EXPECT_TRUE(streams_.synchronize_device());
}

TEST_F(CudaStreamsTest, FailuresAreAnswers) {
  fake_cuda_fail("cuEventCreate", kCuOutOfMemory, 0, 1);
  EXPECT_EQ(streams_.create_event(), kNoEvent);
  const EventHandle event = streams_.create_event();
  fake_cuda_fail("cuEventQuery", 719, 0, 1);
  EXPECT_EQ(streams_.query_event(event), EventState::failed);
  fake_cuda_fail("cuCtxSynchronize", 719, 0, 1);
  EXPECT_FALSE(streams_.synchronize_device());
  fake_cuda_fail("cuEventSynchronize", 719, 0, 1);
  EXPECT_FALSE(streams_.synchronize_event(event));
  streams_.destroy_event(event);
}

TEST_F(CudaStreamsTest, NothingIsLeftToWaitForWhereTheContextHasGone) {
  const EventHandle event = streams_.create_event();
  for (const CuResult gone : {kCuInvalidContext, kCuContextIsDestroyed}) {
    fake_cuda_fail("cuCtxSynchronize", gone, 0, 1);
    EXPECT_TRUE(streams_.synchronize_device()) << gone;
    fake_cuda_fail("cuCtxPushCurrent_v2", gone, 0, UINT64_MAX);
    EXPECT_TRUE(streams_.synchronize_device()) << gone;
    EXPECT_FALSE(streams_.synchronize_stream(kDefaultStream)) << gone;  // whose work has not been done
    EXPECT_FALSE(streams_.synchronize_event(event)) << gone;
    fake_cuda_fail("cuCtxPushCurrent_v2", kCuSuccess, 0, 0);
  }
  streams_.destroy_event(event);
}

TEST_F(CudaStreamsTest, CopiesGoEitherWay) {
  CudaDevice device(0, {}, *driver_);
  DeviceStreams& streams = *device.streams();
  const DirectAllocation memory = device.allocate_direct(64, 256);
  std::array<unsigned char, 64> host{};
  host.fill(0x17);
  streams.copy_async(memory.address, address_of(host.data()), host.size(), stream_);
  host.fill(0);
  streams.copy_async(address_of(host.data()), memory.address, host.size(), kPerThreadStream);
  ASSERT_TRUE(streams.synchronize_stream(kPerThreadStream));
  EXPECT_EQ(host[63], 0x17);
  streams.copy_async(0, 0, 0, stream_);
  EXPECT_THROW(streams.copy_async(memory.address, address_of(host.data()), 1, fake_cuda_create_stream(1)), DeviceError);
  device.free_direct(memory.address, 64, 256);
}

/// Copies that wait for somebody who synchronises: 1 to the host on one stream, 2 to the same place on another.
class CudaStreamOrderTest : public CudaStreamsTest {
 protected:
  void copy(unsigned char& source, StreamHandle stream) {
    streams_.copy_async(address_of(&target_), address_of(&source), 1, stream);
  }

  const StreamHandle other_ = fake_cuda_create_stream(0);
  unsigned char target_ = 0;
  unsigned char one_ = 1;
  unsigned char two_ = 2;
};

TEST_F(CudaStreamOrderTest, StreamsAreNotOrderedUnlessOneWaits) {
  fake_cuda_hold_work(true);
  copy(one_, stream_);
  for (const StreamHandle later : {other_, kDefaultStream, kPerThreadStream}) {
    copy(two_, later);
    EXPECT_TRUE(streams_.synchronize_stream(later));
    EXPECT_EQ(target_, 2);
    target_ = 0;
  }
  EXPECT_TRUE(streams_.synchronize_device());
  EXPECT_EQ(target_, 1) << "the first copy, which nobody has waited for, came last";
}

TEST_F(CudaStreamOrderTest, StreamBehindAnEventFollowsWhatCameBeforeThat) {
  fake_cuda_hold_work(true);
  const EventHandle event = streams_.create_event();
  copy(one_, stream_);
  ASSERT_TRUE(streams_.record_event(event, stream_));
  ASSERT_TRUE(streams_.wait_event(other_, event));
  streams_.destroy_event(event);  // what waits for it keeps it
  copy(two_, other_);
  EXPECT_TRUE(streams_.synchronize_stream(other_));
  EXPECT_EQ(target_, 2);
  EXPECT_TRUE(streams_.synchronize_device());
  EXPECT_EQ(target_, 2);
}

TEST_F(CudaStreamOrderTest, EventIsBehindItsOwnStreamOnly) {
  fake_cuda_hold_work(true);
  const EventHandle event = streams_.create_event();
  copy(one_, stream_);
  ASSERT_TRUE(streams_.record_event(event, other_));
  copy(two_, other_);
  EXPECT_TRUE(streams_.synchronize_event(event));
  EXPECT_EQ(target_, 0);
  EXPECT_TRUE(streams_.synchronize_device());
  streams_.destroy_event(event);
}

}  // namespace
}  // namespace tierpool::testing
