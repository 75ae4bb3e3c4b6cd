#include "tierpool/base/owner_lock.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>

namespace tierpool {
namespace {

TEST(OwnerLock, OwnerTakesItAgainAndAgain) {
  OwnerLock lock;
  for (int i = 0; i < 3; ++i) {
    lock.lock_as_owner();
    lock.unlock_as_owner();
    ASSERT_TRUE(lock.try_lock_as_owner_fast());
    lock.unlock_as_owner();
  }
}

TEST(OwnerLock, OwnerIsRefusedWhileSomeoneClaimsIt) {
  OwnerLock lock;
  lock.claim();
  EXPECT_FALSE(lock.try_lock_as_owner_fast());
  lock.unclaim();
  EXPECT_TRUE(lock.try_lock_as_owner_fast());
  lock.unlock_as_owner();
}

// Plain integers: ThreadSanitizer reports them if the lock does not order the accesses, and a lost update shows in the
// sum.
TEST(OwnerLock, OwnerAndClaimersNeverMeetInside) {
  constexpr int kClaims = 2000;
  OwnerLock lock;
  std::uint64_t count = 0;
  std::uint64_t owner_count = 0;
  std::atomic<bool> done{false};
  std::thread owner([&] {
    for (bool fast = false; !done; fast = !fast) {
      if (!fast) {
        lock.lock_as_owner();
      } else if (!OwnerLock::is_fast() || !lock.try_lock_as_owner_fast()) {
        continue;
      }
      ++count;
      ++owner_count;
      lock.unlock_as_owner();
    }
  });
  std::array<std::thread, 2> claimers;
  for (std::thread& claimer : claimers) {
    claimer = std::thread([&] {
      for (int i = 0; i < kClaims; ++i) {
        lock.claim();
        ++count;
        lock.unclaim();
      }
    });
  }
  for (std::thread& claimer : claimers) {
    claimer.join();
  }
  done = true;
  owner.join();
  EXPECT_EQ(count, owner_count + claimers.size() * kClaims);
}

TEST(OwnerLock, ManyAreClaimedForOneInterruption) {
  std::array<OwnerLock, 3> locks;
  for (OwnerLock& lock : locks) {
    lock.announce();
  }
  OwnerLock::interrupt_owners();
  for (OwnerLock& lock : locks) {
    lock.settle();
    EXPECT_FALSE(lock.try_lock_as_owner_fast());
    lock.unclaim();
  }
}

}  // namespace
}  // namespace tierpool
