#include "tierpool/base/logging.hpp"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "support/captured_log.hpp"

namespace tierpool {
namespace {

using testing::CapturedLog;
using testing::LogRecord;

TEST(Logging, SinkReceivesEveryLevelInOrder) {
  const CapturedLog captured;
  log(LogLevel::debug, "a");
  log(LogLevel::info, "b");
  log(LogLevel::warning, "c");
  log(LogLevel::error, "d");
  const std::vector<LogRecord> expected{
      {LogLevel::debug, "a"}, {LogLevel::info, "b"}, {LogLevel::warning, "c"}, {LogLevel::error, "d"}};
  EXPECT_EQ(captured.records(), expected);
}

TEST(Logging, MessagesAreTextNotFormats) {
  const CapturedLog captured;
  const std::string message = "100 % of {heap} {0} \n\"x\"";
  log(LogLevel::info, message);
  ASSERT_EQ(captured.records().size(), 1u);
  EXPECT_EQ(captured.records().front().message, message);
}

TEST(Logging, LaterSinkReplacesTheEarlier) {
  std::vector<std::string> first;
  set_log_sink([&](LogLevel, std::string_view message) { first.emplace_back(message); });
  log(LogLevel::info, "to the first");
  {
    const CapturedLog second;
    log(LogLevel::info, "to the second");
    EXPECT_EQ(second.records().size(), 1u);
  }
  EXPECT_EQ(first, std::vector<std::string>{"to the first"});
}

TEST(Logging, EmptySinkStandsForStandardError) {
  { const CapturedLog captured; }
  ::testing::internal::CaptureStderr();
  log(LogLevel::warning, "back on standard error");
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("back on standard error"), std::string::npos);
}

TEST(Logging, ThreadsLoseNoRecord) {
  constexpr int kThreads = 4;
  constexpr int kRecords = 200;
  const CapturedLog captured;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([] {
      for (int j = 0; j < kRecords; ++j) {
        log(LogLevel::info, "record");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(captured.records().size(), std::size_t{kThreads * kRecords});
}

// A sink that logs again must not deadlock on a lock of the logger.
TEST(Logging, SinkMayLogItself) {
  int depth = 0;
  int records = 0;
  set_log_sink([&](LogLevel, std::string_view) {
    ++records;
    if (++depth == 1) {
      log(LogLevel::info, "nested");
    }
    --depth;
  });
  log(LogLevel::info, "outer");
  set_log_sink(nullptr);
  EXPECT_EQ(records, 2);
}

}  // namespace
}  // namespace tierpool
