#include "tierpool/storage/direct_reader.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/child_process.hpp"
#include "support/fake_clock.hpp"
#include "support/fake_source.hpp"
#include "support/page_buffer.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::FakeClock;
using testing::FakeSource;
using testing::holds;
using testing::PageBuffer;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFileBytes = 64 * kPage + 123;
using Call = FakeSource::Call;

/// A reader of one fake file, one page in each call.
class DirectReaderTest : public ::testing::Test {
 protected:
  std::unique_ptr<DirectReader> make_reader(std::uint32_t threads, std::uint64_t piece_bytes = kPage) {
    return std::make_unique<DirectReader>(std::vector<std::shared_ptr<ReadSource>>{source_},
                                          DirectReader::Options{.threads = threads, .piece_bytes = piece_bytes},
                                          clock_);
  }
  [[nodiscard]] ReadPiece piece(std::uint64_t page, std::uint64_t pages) const {
    return {0, page * kPage, pages * kPage, buffer_.address() + page * kPage};
  }
  [[nodiscard]] bool arrived(std::uint64_t page, std::uint64_t pages) const {
    return holds(buffer_.address() + page * kPage, source_->bytes(), page * kPage, pages * kPage);
  }

  FakeClock clock_;
  const std::shared_ptr<FakeSource> source_ =
      std::make_shared<FakeSource>(testing::random_bytes(kFileBytes, 5), &clock_);
  PageBuffer buffer_{80 * kPage};
};

TEST_F(DirectReaderTest, ReadsAllPiecesInCallsOfTheSizeAsked) {
  const auto reader = make_reader(1, 2 * kPage);
  const ReadHandle read = reader->submit({piece(1, 5), piece(20, 2)}, ReadPriority::demand);
  EXPECT_EQ(reader->wait(read), ReadOutcome::complete);
  EXPECT_TRUE(reader->is_finished(read));
  EXPECT_EQ(reader->error(read), "");
  EXPECT_TRUE(arrived(1, 5) && arrived(20, 2));
  EXPECT_EQ(
      source_->calls(),
      (std::vector<Call>{{kPage, 2 * kPage}, {3 * kPage, 2 * kPage}, {5 * kPage, kPage}, {20 * kPage, 2 * kPage}}));
  const ReaderStatistics statistics = reader->statistics();
  EXPECT_EQ(statistics.requests, 1u);
  EXPECT_EQ(statistics.requested_bytes, 7 * kPage);
  EXPECT_EQ(statistics.read_bytes, 7 * kPage);
}

TEST_F(DirectReaderTest, BytesBehindTheEndOfTheFileAreZero) {
  const auto reader = make_reader(2);
  const ReadHandle read = reader->submit({piece(62, 5)}, ReadPriority::demand);
  EXPECT_EQ(reader->wait(read), ReadOutcome::complete);
  EXPECT_TRUE(arrived(62, 5));
  EXPECT_EQ(source_->calls().size(), 3u);  // there is nothing to ask for behind it
}

TEST_F(DirectReaderTest, NothingAtAllIsCompleteAtOnce) {
  const auto reader = make_reader(1);
  const ReadHandle read = reader->submit({}, ReadPriority::prefetch);
  EXPECT_EQ(reader->wait(read), ReadOutcome::complete);
}

TEST_F(DirectReaderTest, RefusesWhatIsNotThereAndOptionsThatCannotWork) {
  const auto reader = make_reader(1);
  EXPECT_THROW(static_cast<void>(reader->submit({piece(65, 1)}, ReadPriority::demand)), ConfigError);
  EXPECT_THROW(static_cast<void>(reader->submit({{1, 0, kPage, buffer_.address()}}, ReadPriority::demand)),
               ConfigError);
  EXPECT_THROW(make_reader(0), ConfigError);
  EXPECT_THROW(make_reader(1, 0), ConfigError);
  EXPECT_THROW(make_reader(1, kPage + 1), ConfigError);
}

TEST_F(DirectReaderTest, DemandComesBeforePrefetchAndBeforeTheRestOfOneUnderWay) {
  const auto reader = make_reader(1);
  source_->hold_from(0);
  const ReadHandle first = reader->submit({piece(0, 3)}, ReadPriority::prefetch);
  source_->wait_for_calls(1);
  const ReadHandle second = reader->submit({piece(10, 1)}, ReadPriority::prefetch);
  const ReadHandle third = reader->submit({piece(20, 2)}, ReadPriority::demand);
  source_->let_go();
  for (const ReadHandle& read : {first, second, third}) {
    EXPECT_EQ(reader->wait(read), ReadOutcome::complete);
  }
  std::vector<std::uint64_t> pages;
  for (const Call& call : source_->calls()) {
    pages.push_back(call.offset_bytes / kPage);
  }
  EXPECT_EQ(pages, (std::vector<std::uint64_t>{0, 20, 21, 1, 2, 10}));
}

TEST_F(DirectReaderTest, ADemandThatJoinsAPrefetchHurriesItAndReadsNothingTwice) {
  const auto reader = make_reader(1);
  source_->hold_from(0);
  const ReadHandle first = reader->submit({piece(0, 2)}, ReadPriority::prefetch);
  source_->wait_for_calls(1);
  const ReadHandle second = reader->submit({piece(10, 2)}, ReadPriority::prefetch);
  reader->join(second, ReadPriority::prefetch);
  reader->join(second, ReadPriority::demand);
  reader->join(second, ReadPriority::demand);
  source_->let_go();
  EXPECT_EQ(reader->wait(second), ReadOutcome::complete);
  EXPECT_EQ(reader->wait(first), ReadOutcome::complete);
  EXPECT_EQ(source_->calls(),
            (std::vector<Call>{{0, kPage}, {10 * kPage, kPage}, {11 * kPage, kPage}, {kPage, kPage}}));
  EXPECT_EQ(reader->statistics().joined, 3u);
  EXPECT_EQ(reader->statistics().requests, 5u);
  EXPECT_EQ(reader->statistics().requested_bytes, 4 * kPage);
}

TEST_F(DirectReaderTest, EveryFailureAtEveryReadReachesTheRequester) {
  const struct {
    FakeSource::Failure failure;
    const char* text;
  } kinds[] = {{FakeSource::Failure::io_error, "got 0: Input/output error (errno 5)"},
               {FakeSource::Failure::short_read, "got 2048: the file ends there"},
               {FakeSource::Failure::changed, "got 4096: the file was changed"}};
  for (const auto& kind : kinds) {
    for (std::uint64_t point = 0; point < 6; ++point) {
      const auto reader = make_reader(3);
      const std::uint64_t before = source_->calls().size();
      source_->fail_at(before + point, kind.failure);
      const ReadHandle read = reader->submit({piece(1, 4), piece(30, 2)}, ReadPriority::demand);
      EXPECT_EQ(reader->wait(read), ReadOutcome::failed) << point;
      const std::string failed_offset = std::to_string(source_->calls()[before + point].offset_bytes);
      EXPECT_NE(reader->error(read).find("4096 bytes at " + failed_offset + " of 'fake.gguf', " + kind.text),
                std::string::npos)
          << reader->error(read);
      EXPECT_EQ(reader->statistics().failed, 1u);
      source_->recover();
      EXPECT_EQ(reader->wait(reader->submit({piece(1, 4)}, ReadPriority::demand)), ReadOutcome::complete);
    }
  }
}

TEST_F(DirectReaderTest, AfterAFailureNoFurtherPieceIsBegun) {
  const auto reader = make_reader(1);
  source_->fail_at(1, FakeSource::Failure::io_error);
  const ReadHandle read = reader->submit({piece(0, 10)}, ReadPriority::demand);
  EXPECT_EQ(reader->wait(read), ReadOutcome::failed);
  EXPECT_EQ(reader->wait(reader->submit({piece(20, 1)}, ReadPriority::demand)), ReadOutcome::complete);
  EXPECT_EQ(source_->calls().size(), 3u);
}

TEST_F(DirectReaderTest, ACancelledReadThatHasNotBegunTouchesNothing) {
  const auto reader = make_reader(1);
  source_->hold_from(0);
  const ReadHandle first = reader->submit({piece(0, 1)}, ReadPriority::demand);
  source_->wait_for_calls(1);
  PageBuffer other(2 * kPage);
  const ReadHandle second = reader->submit({{0, 0, 2 * kPage, other.address()}}, ReadPriority::demand);
  reader->cancel(second);
  EXPECT_EQ(reader->wait(second), ReadOutcome::cancelled);
  EXPECT_EQ(reader->error(second), "The read was cancelled");
  source_->let_go();
  EXPECT_EQ(reader->wait(first), ReadOutcome::complete);
  reader->cancel(first);
  EXPECT_EQ(reader->wait(first), ReadOutcome::complete);
  EXPECT_TRUE(other.is_untouched());
  EXPECT_EQ(reader->statistics().cancelled, 1u);
  EXPECT_EQ(source_->calls().size(), 1u);
}

TEST_F(DirectReaderTest, WaitingForACancelledReadOutlastsTheCallUnderWay) {
  const auto reader = make_reader(1);
  source_->hold_from(0);
  const ReadHandle read = reader->submit({piece(0, 3)}, ReadPriority::demand);
  source_->wait_for_calls(1);
  reader->cancel(read);
  EXPECT_FALSE(reader->is_finished(read));  // a call still writes to the destination
  std::thread release([this] { source_->let_go(); });
  EXPECT_EQ(reader->wait(read), ReadOutcome::cancelled);
  EXPECT_TRUE(arrived(0, 1));  // the call under way has ended
  release.join();
  EXPECT_EQ(source_->calls().size(), 1u);
}

TEST_F(DirectReaderTest, CloseCancelsWhatWaitsAndWaitsForWhatRuns) {
  const auto reader = make_reader(2);
  source_->hold_from(0);
  const ReadHandle running = reader->submit({piece(0, 1)}, ReadPriority::demand);
  const ReadHandle broken_off = reader->submit({piece(5, 4)}, ReadPriority::demand);
  const ReadHandle waiting = reader->submit({piece(10, 2)}, ReadPriority::prefetch);
  source_->wait_for_calls(2);
  std::thread release([&] {
    EXPECT_EQ(reader->wait(waiting), ReadOutcome::cancelled);  // before any call has ended
    source_->let_go();
  });
  reader->close();
  release.join();
  EXPECT_EQ(reader->wait(running), ReadOutcome::complete);
  EXPECT_EQ(reader->wait(broken_off), ReadOutcome::cancelled);
  EXPECT_EQ(reader->wait(reader->submit({piece(0, 1)}, ReadPriority::demand)), ReadOutcome::cancelled);
  EXPECT_EQ(source_->calls().size(), 2u);
  reader->close();
}

TEST_F(DirectReaderTest, BusyTimeCountsOverlappingReadsOnce) {
  const auto reader = make_reader(2);
  source_->set_delay(1000);
  source_->hold_from(0);
  const ReadHandle both = reader->submit({piece(0, 2)}, ReadPriority::demand);
  source_->wait_for_calls(2);
  source_->let_go();
  EXPECT_EQ(reader->wait(both), ReadOutcome::complete);
  clock_.advance(50000);  // idle
  EXPECT_EQ(reader->wait(reader->submit({piece(4, 1)}, ReadPriority::demand)), ReadOutcome::complete);
  EXPECT_EQ(reader->statistics().busy_ns, 3000u);
}

TEST_F(DirectReaderTest, AForkedChildIsToldInsteadOfWaitingForEver) {
  const auto reader = make_reader(1);
  const ReadHandle before = reader->submit({piece(0, 1)}, ReadPriority::demand);
  EXPECT_EQ(reader->wait(before), ReadOutcome::complete);
  const int status = testing::exit_status_of_child([&] {
    const ReadHandle read = reader->submit({piece(0, 1)}, ReadPriority::demand);
    const bool told = reader->wait(read) == ReadOutcome::cancelled && reader->is_finished(read) &&
                      reader->error(read).find("forked") != std::string::npos;
    reader->close();
    return told ? 7 : 1;
  });
  EXPECT_EQ(status, 7);
}

TEST_F(DirectReaderTest, AForkedChildDestroysItWhileTheParentsThreadsWait) {
  auto reader = make_reader(3);
  source_->hold_from(0);
  ReadHandle read = reader->submit({piece(0, 1)}, ReadPriority::demand);
  source_->wait_for_calls(1);
  std::thread waiting([&] { EXPECT_EQ(reader->wait(read), ReadOutcome::complete); });
  // By the last round at the latest, all of them wait.
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(testing::exit_status_of_child([&] {
                read.reset();
                reader.reset();
                return 7;
              }),
              7);
  }
  source_->let_go();
  waiting.join();
}

TEST_F(DirectReaderTest, ManyThreadsMaySubmitJoinCancelAndWait) {
  const auto reader = make_reader(3);
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      PageBuffer own(8 * kPage);
      for (int round = 0; round < 200; ++round) {
        const std::uint64_t page = random() % 60;
        const auto priority = random() % 2 == 0 ? ReadPriority::demand : ReadPriority::prefetch;
        const ReadHandle read = reader->submit({{0, page * kPage, 8 * kPage, own.address()}}, priority);
        const bool cancels = random() % 4 == 0;
        if (cancels) {
          reader->cancel(read);
        } else {
          reader->join(read, ReadPriority::demand);
        }
        const ReadOutcome outcome = reader->wait(read);
        const bool is_right = holds(own.address(), source_->bytes(), page * kPage, 8 * kPage);
        wrong += outcome == ReadOutcome::complete ? !is_right : !cancels;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong.load(), 0u);
}

}  // namespace
}  // namespace tierpool
