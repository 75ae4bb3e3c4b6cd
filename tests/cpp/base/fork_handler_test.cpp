#include "tierpool/base/fork_handler.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "support/child_process.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool {
namespace {

using testing::exit_status_of_child;

TEST(ForkHandler, LocksAreTakenByRankAndLeftInReverseInParentAndChild) {
  std::string trace;
  const auto note = [&trace](char letter) { return [&trace, letter] { trace += letter; }; };
  const ForkHandler device(ForkHandler::Rank::device, note('d'), note('D'));
  const ForkHandler pool(ForkHandler::Rank::pool, note('p'), note('P'));
  const ForkHandler log(ForkHandler::Rank::log, note('l'), note('L'));
  const ForkHandler second_pool(ForkHandler::Rank::pool, note('q'), note('Q'));
  EXPECT_EQ(exit_status_of_child([&trace] { return trace == "pqdlLDQP" ? 7 : 1; }), 7);
  EXPECT_EQ(trace, "pqdlLDQP");
}

TEST(ForkHandler, HandlerThatIsGoneIsNotCalled) {
  int calls = 0;
  {
    const ForkHandler gone(
        ForkHandler::Rank::pool, [&calls] { ++calls; }, [] {});
  }
  EXPECT_EQ(exit_status_of_child([] { return 7; }), 7);
  EXPECT_EQ(calls, 0);
}

TEST(ForkHandler, HandlersMayComeAndGoWhileOthersFork) {
  std::atomic<bool> done{false};
  std::atomic<int> balance{0};
  std::thread other([&] {
    while (!done) {
      const ForkHandler short_lived(
          ForkHandler::Rank::device, [&] { ++balance; }, [&] { --balance; });
    }
  });
  for (int round = 0; round < 50; ++round) {
    EXPECT_EQ(exit_status_of_child([&balance] { return balance == 0 ? 7 : 1; }), 7);
  }
  done = true;
  other.join();
  EXPECT_EQ(balance, 0);
}

TEST(ForkHandler, ChildLogsToStandardErrorWhileThreadsOfItsParentDidSo) {
  const int standard_error = dup(STDERR_FILENO);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(standard_error, 0);
  ASSERT_GE(nowhere, 0);
  dup2(nowhere, STDERR_FILENO);
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&done] {
      while (!done) {
        log(LogLevel::debug, "from the parent");
      }
    });
  }
  std::vector<int> results;
  for (int round = 0; round < 50; ++round) {
    results.push_back(exit_status_of_child([] {
      log(LogLevel::debug, "from the child");
      return 7;
    }));
  }
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  dup2(standard_error, STDERR_FILENO);
  close(standard_error);
  close(nowhere);
  EXPECT_EQ(results, std::vector<int>(50, 7));
}

}  // namespace
}  // namespace tierpool
