#include "tierpool/arena/page_pins.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "support/child_process.hpp"

namespace tierpool {
namespace {

const std::uint64_t kPage = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));

/// Which pages a system would have locked: one unlock forgets every lock of a page.
struct FakeSystem {
  std::set<std::uint64_t> locked;  // page numbers
  bool refuses = false;
  std::uint64_t unlock_calls = 0;
};
FakeSystem fake_system;

bool fake_lock(std::uint64_t address, std::uint64_t bytes) {
  if (fake_system.refuses) {
    fake_system.locked.insert(address / kPage);  // a refused call may have locked a part
    return false;
  }
  for (std::uint64_t page = address / kPage; page < (address + bytes) / kPage; ++page) {
    fake_system.locked.insert(page);
  }
  return true;
}

void fake_unlock(std::uint64_t address, std::uint64_t bytes) {
  ++fake_system.unlock_calls;
  for (std::uint64_t page = address / kPage; page < (address + bytes) / kPage; ++page) {
    fake_system.locked.erase(page);
  }
}

class PagePinsTest : public ::testing::Test {
 protected:
  void SetUp() override { fake_system = {}; }
  PagePins pins_{{fake_lock, fake_unlock}};
};

using Pages = std::set<std::uint64_t>;

TEST_F(PagePinsTest, WholePagesAroundTheRange) {
  const PagePins::Token token = pins_.pin(10 * kPage + 5, 2 * kPage);
  EXPECT_TRUE(pins_.holds(token));
  EXPECT_EQ(fake_system.locked, (Pages{10, 11, 12}));
  pins_.unpin(10 * kPage + 5, 2 * kPage, token);
  EXPECT_TRUE(fake_system.locked.empty());
  EXPECT_FALSE(pins_.holds(0));
}

TEST_F(PagePinsTest, SharedPageStaysUntilTheLastOwnerLetsGo) {
  const PagePins::Token first = pins_.pin(10 * kPage, kPage + 100);
  const PagePins::Token second = pins_.pin(11 * kPage + 200, kPage);
  pins_.unpin(10 * kPage, kPage + 100, first);
  EXPECT_EQ(fake_system.locked, (Pages{11, 12}));
  pins_.unpin(11 * kPage + 200, kPage, second);
  EXPECT_TRUE(fake_system.locked.empty());
}

TEST_F(PagePinsTest, TheSameRangeMayHaveSeveralOwners) {
  const PagePins::Token token = pins_.pin(10 * kPage, kPage);
  static_cast<void>(pins_.pin(10 * kPage, kPage));
  pins_.unpin(10 * kPage, kPage, token);
  EXPECT_EQ(fake_system.locked, Pages{10});
  EXPECT_EQ(fake_system.unlock_calls, 0u);
  pins_.unpin(10 * kPage, kPage, token);
  EXPECT_TRUE(fake_system.locked.empty());
}

TEST_F(PagePinsTest, RefusalLeavesOnlyWhatOthersOwn) {
  static_cast<void>(pins_.pin(10 * kPage, kPage));
  fake_system.refuses = true;
  EXPECT_EQ(pins_.pin(9 * kPage, 3 * kPage), 0u);
  EXPECT_EQ(fake_system.locked, Pages{10});
}

TEST_F(PagePinsTest, RandomPinsMatchACountPerPage) {
  std::mt19937_64 random(1);
  std::map<std::uint64_t, int> owners;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pinned;
  PagePins::Token token = 0;
  for (int step = 0; step < 5000; ++step) {
    const bool pins = pinned.empty() || random() % 2 == 0;
    if (pins) {
      pinned.emplace_back((random() % 40 + 1) * kPage + random() % kPage, random() % (6 * kPage) + 1);
      token = pins_.pin(pinned.back().first, pinned.back().second);
    } else {
      std::swap(pinned[random() % pinned.size()], pinned.back());
      pins_.unpin(pinned.back().first, pinned.back().second, token);
    }
    const auto [address, bytes] = pinned.back();
    for (std::uint64_t page = address / kPage; page <= (address + bytes - 1) / kPage; ++page) {
      owners[page] += pins ? 1 : -1;
    }
    if (!pins) {
      pinned.pop_back();
    }
    Pages expected;
    for (const auto& [page, count] : owners) {
      if (count > 0) {
        expected.insert(page);
      }
    }
    ASSERT_EQ(fake_system.locked, expected) << step;
  }
}

// Memory locks are not inherited: a child that believed in them would report pinned memory that is not.
TEST_F(PagePinsTest, ChildOfAForkHasNone) {
  const PagePins::Token token = pins_.pin(10 * kPage, kPage);
  EXPECT_EQ(testing::exit_status_of_child([&] {
              bool right = !pins_.holds(token);
              pins_.unpin(10 * kPage, kPage, token);
              right = right && fake_system.unlock_calls == 0;
              const PagePins::Token own = pins_.pin(10 * kPage, kPage);
              right = right && pins_.holds(own) && !pins_.holds(token);
              return right ? 0 : 1;
            }),
            0);
  EXPECT_TRUE(pins_.holds(token));
}

}  // namespace
}  // namespace tierpool
