#include "tierpool/arena/residency.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "support/child_process.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"

namespace tierpool {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLocksMemory = false;  // sanitizers turn mlock() into nothing
#else
constexpr bool kLocksMemory = true;
#endif

/// A private mapping for the test's time.
class Mapping {
 public:
  explicit Mapping(std::uint64_t bytes)
      : bytes_(bytes), memory_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Mapping() { munmap(memory_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] std::uint64_t address() const { return address_of(memory_); }

 private:
  std::uint64_t bytes_;
  void* memory_;
};

/// Memory of this process that is locked into RAM, in bytes; 0 where the system does not tell.
std::uint64_t locked_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmLck:")) {
      return std::stoull(line.substr(6)) * kKiB;
    }
  }
  return 0;
}

bool locked_bytes_are_known() { return kLocksMemory && std::ifstream("/proc/self/status").good(); }

BufferPool host_pool(bool pins = true) {
  BufferPoolConfig config;
  config.pin_registered = pins;
  return BufferPool(config, testing::bare(std::make_shared<HostDevice>()));
}

TEST(Residency, AccountsForWhatItDoesNotOwn) {
  const Mapping memory(64 * kKiB);
  {
    BufferPool pool = host_pool();
    EXPECT_TRUE(pool.register_existing(memory.address() + 100, 5000));
    EXPECT_EQ(pool.in_use_count(), 0u);
    EXPECT_EQ(pool.reset(), ResetOutcome::done);
    pool.clear();
    EXPECT_EQ(pool.free_count(), 0u);
    EXPECT_EQ(pool.statistics().held_bytes, 0u);
    EXPECT_EQ(pool.statistics().residency.registered_count, 1u);
    EXPECT_EQ(pool.statistics().residency.registered_bytes, 5000u);
    ASSERT_EQ(pool.registrations().size(), 1u);
    EXPECT_EQ(pool.registrations()[0].address, memory.address() + 100);
    EXPECT_EQ(pool.registrations()[0].bytes, 5000u);
    *static_cast<char*>(pointer_at(memory.address() + 100)) = 'x';
  }
  EXPECT_EQ(*static_cast<char*>(pointer_at(memory.address() + 100)), 'x');
}

TEST(Residency, TheSameRangeCountsOnce) {
  const Mapping memory(64 * kKiB);
  BufferPool pool = host_pool();
  EXPECT_TRUE(pool.register_existing(memory.address(), 5000));
  EXPECT_FALSE(pool.register_existing(memory.address(), 5000));
  EXPECT_EQ(pool.statistics().residency.registered_count, 1u);
  EXPECT_TRUE(pool.unregister_existing(memory.address(), 5000));
  EXPECT_FALSE(pool.unregister_existing(memory.address(), 5000));
  EXPECT_EQ(pool.statistics().residency.registered_count, 0u);
}

TEST(Residency, OverlapsAreRefused) {
  const Mapping memory(64 * kKiB);
  BufferPool pool = host_pool();
  const std::uint64_t address = memory.address() + 10000;
  EXPECT_TRUE(pool.register_existing(address, 5000));
  for (const auto& [offset, bytes] : {std::pair{-100, 101}, {-100, 9000}, {0, 4999}, {0, 5001}, {100, 10}, {4999, 5}}) {
    EXPECT_THROW(
        pool.register_existing(address + static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(bytes)),
        std::invalid_argument)
        << offset;
  }
  EXPECT_FALSE(pool.unregister_existing(address, 4999));
  EXPECT_TRUE(pool.register_existing(address - 100, 100));
  EXPECT_TRUE(pool.register_existing(address + 5000, 100));
  EXPECT_EQ(pool.statistics().residency.registered_count, 3u);
}

TEST(Residency, ImpossibleRangesAreRefused) {
  BufferPool pool = host_pool();
  EXPECT_THROW(pool.register_existing(0, 100), std::invalid_argument);
  EXPECT_THROW(pool.register_existing(4096, 0), std::invalid_argument);
  EXPECT_THROW(pool.register_existing(4096, UINT64_MAX), std::invalid_argument);
  EXPECT_THROW(pool.register_existing(UINT64_MAX - 10, 5), std::invalid_argument);
  EXPECT_EQ(pool.statistics().residency.registered_count, 0u);
}

TEST(Residency, MemoryOfAnotherDeviceIsRefused) {
  testing::SimulatedArena arena;
  EXPECT_THROW(arena.pool->register_existing(4096, 4096), std::invalid_argument);
}

TEST(Residency, LocksPagesAndUnlocksThemWithTheRegistration) {
  if (!locked_bytes_are_known()) {
    GTEST_SKIP() << "only Linux tells what is locked, and sanitizers lock nothing";
  }
  const std::uint64_t before = locked_bytes();
  const Mapping memory(64 * kKiB);
  BufferPool pool = host_pool();
  pool.register_existing(memory.address(), 16 * kKiB);
  EXPECT_EQ(locked_bytes() - before, 16 * kKiB);
  EXPECT_EQ(pool.statistics().residency.pinned_bytes, 16 * kKiB);
  EXPECT_TRUE(pool.registrations()[0].pinned);
  {
    BufferPool other = host_pool();
    other.register_existing(memory.address() + 8 * kKiB, 16 * kKiB);
    EXPECT_EQ(locked_bytes() - before, 24 * kKiB);
    pool.unregister_existing(memory.address(), 16 * kKiB);
    EXPECT_EQ(locked_bytes() - before, 16 * kKiB);
  }
  EXPECT_EQ(locked_bytes(), before);
}

TEST(Residency, CloseEndsRegistrations) {
  const Mapping memory(64 * kKiB);
  BufferPool pool = host_pool();
  pool.register_existing(memory.address(), 4096);
  pool.close();
  EXPECT_EQ(pool.statistics().residency.registered_count, 0u);
  EXPECT_FALSE(pool.unregister_existing(memory.address(), 4096));
}

TEST(Residency, SwitchedOffItOnlyAccounts) {
  const std::uint64_t before = locked_bytes();
  const Mapping memory(64 * kKiB);
  BufferPool pool = host_pool(false);
  EXPECT_TRUE(pool.register_existing(memory.address(), 16 * kKiB));
  EXPECT_FALSE(pool.register_existing(memory.address(), 16 * kKiB));
  EXPECT_EQ(locked_bytes(), before);
  EXPECT_EQ(pool.statistics().residency.registered_bytes, 16 * kKiB);
  EXPECT_EQ(pool.statistics().residency.pinned_bytes, 0u);
  EXPECT_FALSE(pool.registrations()[0].pinned);
}

// In a child, because a process may not raise its limit again; as nobody, because the limit does not bind root.
TEST(Residency, BeyondTheSystemsLimitMemoryIsNotPinned) {
  if (!kLocksMemory) {
    GTEST_SKIP() << "sanitizers lock nothing";
  }
  constexpr int kNoLowerLimit = 2;
  const int status = testing::exit_status_of_child([] {
    const rlimit limit{64 * kKiB, 64 * kKiB};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || (geteuid() == 0 && setuid(65534) != 0)) {
      return kNoLowerLimit;
    }
    const Mapping memory(kMiB);
    BufferPool pool = host_pool();
    bool right = pool.register_existing(memory.address(), 16 * kKiB);
    right = right && pool.register_existing(memory.address() + 64 * kKiB, 512 * kKiB);
    const ResidencyStatistics now = pool.statistics().residency;
    right = right && now.registered_bytes == 528 * kKiB && now.pinned_bytes == 16 * kKiB;
    right = right && pool.registrations()[0].pinned && !pool.registrations()[1].pinned;
    return right ? 0 : 1;
  });
  if (status == kNoLowerLimit) {
    GTEST_SKIP() << "limits cannot be lowered here";
  }
  EXPECT_EQ(status, 0);
}

TEST(Residency, ThreadsMayRegisterAtOnce) {
  constexpr int kThreads = 8;
  const Mapping memory(kMiB);
  BufferPool pool = host_pool();
  std::vector<std::thread> threads;
  for (std::uint64_t index = 0; index < kThreads; ++index) {
    threads.emplace_back([&, index] {
      for (int step = 0; step < 200; ++step) {
        pool.register_existing(memory.address() + index * 1000, 1000);
        pool.register_existing(memory.address() + 100000, 1000);
        static_cast<void>(pool.statistics());
        pool.unregister_existing(memory.address() + index * 1000, 1000);
        pool.unregister_existing(memory.address() + 100000, 1000);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(pool.statistics().residency.registered_count, 0u);
}

}  // namespace
}  // namespace tierpool
