#include "tierpool/device/simulated_streams.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

/// Two streams and an event, and a record of what ran.
class SimulatedStreamsTest : public ::testing::Test {
 protected:
  void enqueue(StreamHandle stream, const std::string& name) {
    streams_.enqueue(stream, [this, name] { ran_ += name; });
  }

  SimulatedStreams streams_;
  const StreamHandle first_ = streams_.create_stream();
  const StreamHandle second_ = streams_.create_stream();
  const EventHandle event_ = streams_.create_event();
  std::string ran_;
};

TEST_F(SimulatedStreamsTest, NothingRunsUntilAdvancedAndThenInOrder) {
  enqueue(first_, "a");
  enqueue(first_, "b");
  enqueue(second_, "c");
  EXPECT_EQ(ran_, "");
  EXPECT_TRUE(streams_.advance(second_));
  EXPECT_TRUE(streams_.advance(first_));
  EXPECT_FALSE(streams_.advance(second_));
  EXPECT_EQ(ran_, "ca");
  EXPECT_EQ(streams_.queued_count(), 1u);
}

TEST_F(SimulatedStreamsTest, AnEventIsCompleteOnceWhatCameBeforeItHasRun) {
  EXPECT_EQ(streams_.query_event(event_), EventState::complete);
  enqueue(first_, "a");
  ASSERT_TRUE(streams_.record_event(event_, first_));
  enqueue(first_, "b");
  EXPECT_EQ(streams_.query_event(event_), EventState::pending);
  streams_.advance(first_);
  EXPECT_EQ(streams_.query_event(event_), EventState::pending);
  streams_.advance(first_);
  EXPECT_EQ(streams_.query_event(event_), EventState::complete);
  EXPECT_EQ(ran_, "a");
}

TEST_F(SimulatedStreamsTest, AnEventOfAnIdleStreamIsCompleteAtOnce) {
  ASSERT_TRUE(streams_.record_event(event_, first_));
  EXPECT_EQ(streams_.query_event(event_), EventState::complete);
  EXPECT_EQ(streams_.queued_count(), 0u);
}

TEST_F(SimulatedStreamsTest, AStreamThatWaitsStandsStillUntilTheEvent) {
  enqueue(first_, "a");
  ASSERT_TRUE(streams_.record_event(event_, first_));
  ASSERT_TRUE(streams_.wait_event(second_, event_));
  enqueue(second_, "b");
  EXPECT_FALSE(streams_.advance(second_));
  while (streams_.advance(first_)) {
  }
  while (streams_.advance(second_)) {
  }
  EXPECT_EQ(ran_, "ab");
}

TEST_F(SimulatedStreamsTest, AWaitMeansTheRecordingOfItsTimeEvenOfADestroyedEvent) {
  enqueue(first_, "c");
  ASSERT_TRUE(streams_.record_event(event_, first_));
  ASSERT_TRUE(streams_.wait_event(second_, event_));
  enqueue(second_, "b");
  enqueue(first_, "a");
  ASSERT_TRUE(streams_.record_event(event_, first_));
  streams_.destroy_event(event_);
  EXPECT_EQ(streams_.event_count(), 0u);
  EXPECT_FALSE(streams_.advance(second_));
  EXPECT_TRUE(streams_.advance(first_));
  EXPECT_TRUE(streams_.advance(first_));
  EXPECT_TRUE(streams_.advance(second_));
  EXPECT_TRUE(streams_.advance(second_));
  EXPECT_EQ(ran_, "cb");
  EXPECT_EQ(streams_.misuse_count(), 0u);
}

TEST_F(SimulatedStreamsTest, SynchronizingRunsWhatIsWaitedForAndTellsADeadlock) {
  enqueue(first_, "a");
  ASSERT_TRUE(streams_.record_event(event_, first_));
  ASSERT_TRUE(streams_.wait_event(second_, event_));
  enqueue(second_, "b");
  EXPECT_TRUE(streams_.synchronize_stream(second_));
  EXPECT_EQ(ran_, "ab");
  enqueue(first_, "c");
  EXPECT_TRUE(streams_.synchronize_device());
  EXPECT_EQ(ran_, "abc");
  const EventHandle other = streams_.create_event();
  ASSERT_TRUE(streams_.record_event(event_, first_));
  ASSERT_TRUE(streams_.wait_event(second_, event_));
  ASSERT_TRUE(streams_.record_event(other, second_));
  EXPECT_TRUE(streams_.synchronize_event(other));
}

TEST_F(SimulatedStreamsTest, StreamsAreToldApartByIdWhereHandlesAreUsedAgain) {
  const std::uint64_t id = streams_.stream_id(first_);
  streams_.destroy_stream(first_);
  EXPECT_EQ(streams_.stream_id(first_), 0u);
  EXPECT_FALSE(streams_.record_event(event_, first_));
  EXPECT_EQ(streams_.misuse_count(), 2u);
  EXPECT_EQ(streams_.create_stream(), first_);
  EXPECT_NE(streams_.stream_id(first_), id);
  EXPECT_EQ(streams_.stream_id(kDefaultStream), streams_.stream_id(kLegacyStream));
  std::uint64_t other_thread = 0;
  std::thread([&] { other_thread = streams_.stream_id(kPerThreadStream); }).join();
  EXPECT_NE(streams_.stream_id(kPerThreadStream), other_thread);
  EXPECT_NE(streams_.stream_id(kPerThreadStream), streams_.stream_id(kDefaultStream));
}

TEST_F(SimulatedStreamsTest, WorkOfADestroyedStreamStillRuns) {
  enqueue(first_, "a");
  streams_.destroy_stream(first_);
  EXPECT_FALSE(streams_.advance(first_));
  EXPECT_TRUE(streams_.advance_any());
  EXPECT_EQ(ran_, "a");
}

TEST_F(SimulatedStreamsTest, CapturedWorkDoesNotRunAndItsEventsMustNotBeAsked) {
  streams_.begin_capture(first_);
  EXPECT_TRUE(streams_.is_capturing(first_));
  EXPECT_FALSE(streams_.is_capturing(second_));
  enqueue(first_, "a");
  EXPECT_TRUE(streams_.record_event(event_, first_));
  EXPECT_EQ(streams_.misuse_count(), 0u);
  EXPECT_EQ(streams_.query_event(event_), EventState::failed);
  EXPECT_FALSE(streams_.wait_event(second_, event_));
  EXPECT_FALSE(streams_.synchronize_event(event_));
  EXPECT_EQ(streams_.misuse_count(), 3u);
  EXPECT_FALSE(streams_.synchronize_device());
  EXPECT_EQ(streams_.misuse_count(), 4u);
  EXPECT_FALSE(streams_.synchronize_stream(first_));
  streams_.end_capture(first_);
  EXPECT_TRUE(streams_.synchronize_device());
  EXPECT_EQ(ran_, "");
}

TEST_F(SimulatedStreamsTest, StrangersAreMisuse) {
  EXPECT_THROW(streams_.require_stream(77), DeviceError);
  EXPECT_THROW(streams_.copy_async(1, 2, 3, 77), DeviceError);
  EXPECT_EQ(streams_.query_event(77), EventState::failed);
  streams_.destroy_event(event_);
  streams_.destroy_event(event_);
  streams_.destroy_stream(kDefaultStream);
  EXPECT_EQ(streams_.misuse_count(), 3u);
}

TEST_F(SimulatedStreamsTest, CallsFailOnDemand) {
  streams_.fail(StreamCall::create_event, 1, 1);
  EXPECT_NE(streams_.create_event(), kNoEvent);
  EXPECT_EQ(streams_.create_event(), kNoEvent);
  EXPECT_NE(streams_.create_event(), kNoEvent);
  streams_.fail(StreamCall::record_event);
  EXPECT_FALSE(streams_.record_event(event_, first_));
  streams_.fail(StreamCall::wait_event);
  EXPECT_FALSE(streams_.wait_event(first_, event_));
  streams_.fail(StreamCall::query_event);
  EXPECT_EQ(streams_.query_event(event_), EventState::failed);
  streams_.fail(StreamCall::synchronize);
  EXPECT_FALSE(streams_.synchronize_event(event_));
  streams_.fail(StreamCall::copy_async);
  EXPECT_THROW(streams_.copy_async(1, 2, 3, first_), DeviceError);
  streams_.recover();
  EXPECT_TRUE(streams_.record_event(event_, first_));
  EXPECT_EQ(streams_.call_count(StreamCall::create_event), 4u);
  EXPECT_EQ(streams_.misuse_count(), 0u);
}

TEST_F(SimulatedStreamsTest, CopiesUseTheDevicesMemoryWhenTheirTurnComes) {
  SimulatedDevice device(64 * kMiB);
  SimulatedStreams& streams = device.simulated_streams();
  EXPECT_EQ(device.streams(), &streams);
  const StreamHandle stream = streams.create_stream();
  const Reservation range = device.reserve(4 * kMiB);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  streams.copy_async(range.address, 4096, kMiB, stream);
  streams.copy_async(range.address + 2 * kMiB, range.address, kMiB, stream);
  EXPECT_TRUE(streams.advance(stream));
  EXPECT_EQ(device.misuse_count(), 0u);
  ASSERT_TRUE(device.decommit(range.address, 2 * kMiB));
  EXPECT_TRUE(streams.advance(stream));
  EXPECT_EQ(device.misuse_count(), 1u);
  device.release(range);
}

// Every interleaving of work keeps what waits promise.
TEST_F(SimulatedStreamsTest, RandomGraphsRunInAnOrderTheirEventsAllow) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    SimulatedStreams streams;
    std::vector<StreamHandle> handles;
    for (int i = 0; i < 4; ++i) {
      handles.push_back(streams.create_stream());
    }
    std::vector<bool> ran(60, false);
    std::uint64_t wrong = 0;
    std::vector<std::pair<EventHandle, std::size_t>> events;  // and the work before it
    for (std::size_t work = 0; work < ran.size(); ++work) {
      const StreamHandle stream = handles[random() % handles.size()];
      std::size_t needed = work;
      if (!events.empty() && random() % 2 == 0) {
        const auto& [event, before] = events[random() % events.size()];
        ASSERT_TRUE(streams.wait_event(stream, event));
        needed = before;
      }
      streams.enqueue(stream, [&, work, needed] {
        wrong += needed == work || ran[needed] ? 0 : 1;
        ran[work] = true;
      });
      if (random() % 3 == 0) {
        events.emplace_back(streams.create_event(), work);
        ASSERT_TRUE(streams.record_event(events.back().first, stream));
      }
      if (random() % 3 == 0) {
        streams.advance_any(random());
      }
    }
    while (streams.advance_any(random())) {
    }
    EXPECT_EQ(wrong, 0u) << "seed " << seed;
    EXPECT_EQ(streams.queued_count(), 0u);
    EXPECT_EQ(streams.misuse_count(), 0u);
  }
}

TEST_F(SimulatedStreamsTest, ThreadsMayAdvanceWhatOthersFill) {
  constexpr int kRounds = 500;
  std::atomic<int> ran{0};
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    for (std::uint64_t turn = 0; !stop.load(); ++turn) {
      if (!streams_.advance_any(turn)) {
        std::this_thread::yield();
      }
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    streams_.enqueue(first_, [&] { ran.fetch_add(1); });
    ASSERT_TRUE(streams_.record_event(event_, first_));
    ASSERT_TRUE(streams_.wait_event(second_, event_));
    streams_.enqueue(second_, [&, i] { EXPECT_GE(ran.load(), i + 1); });
  }
  EXPECT_TRUE(streams_.synchronize_stream(second_));
  stop.store(true);
  worker.join();
  EXPECT_EQ(ran.load(), kRounds);
  EXPECT_EQ(streams_.misuse_count(), 0u);
}

}  // namespace
}  // namespace tierpool
