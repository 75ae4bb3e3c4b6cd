#include "tierpool/device/host_device.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "contracts/device_contract.hpp"
#include "support/captured_log.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

struct MakeHost {
  static constexpr const char* kName = "host";
  static std::shared_ptr<Device> make() { return std::make_shared<HostDevice>(); }
};

struct MakeSharedHost {
  static constexpr const char* kName = "host";
  static std::shared_ptr<Device> make() { return std::make_shared<HostDevice>(HostBacking::shared_memory); }
};

}  // namespace

namespace testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceContract, MakeHost);
INSTANTIATE_TYPED_TEST_SUITE_P(SharedHost, DeviceContract, MakeSharedHost);
}  // namespace testing

namespace {

constexpr std::uint64_t kLargeBytes = 96 * kMiB;  // populated in parallel, in pieces

unsigned char* bytes_at(std::uint64_t address) { return static_cast<unsigned char*>(pointer_at(address)); }

TEST(HostDevice, GranuleIsAHugePage) {
  const HostDevice device;
  EXPECT_EQ(device.granularity_bytes(), 2 * kMiB);
  EXPECT_EQ(device.max_alignment_bytes(), 2 * kMiB);
  EXPECT_TRUE(device.host_accessible());
  EXPECT_TRUE(device.commits_zeroed());
}

TEST(HostDevice, LargeCommitKeepsWhatIsThereAndZeroesTheRest) {
  HostDevice device;
  const Reservation range = device.reserve(kLargeBytes);
  const std::uint64_t live = range.address + 30 * kMiB;
  ASSERT_TRUE(device.commit(live, 4 * kMiB));
  for (std::uint64_t offset = 0; offset < 4 * kMiB; offset += 512) {
    bytes_at(live)[offset] = static_cast<unsigned char>(offset / 512 + 1);
  }
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  std::uint64_t wrong = 0;
  for (std::uint64_t address = range.address; address < range.address + range.bytes; address += 512) {
    const bool is_live = address >= live && address < live + 4 * kMiB;
    const auto expected = static_cast<unsigned char>(is_live ? (address - live) / 512 + 1 : 0);
    wrong += *bytes_at(address) == expected ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0u);
  device.release(range);
}

// A repeated warm-up populates what other threads are writing to.
TEST(HostDevice, CommitLosesNoWriteOfAnotherThread) {
  HostDevice device;
  const Reservation range = device.reserve(32 * kMiB);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  std::atomic<bool> stop{false};
  std::uint64_t lost = 0;
  std::uint32_t written = 0;
  // Atomic writes, because the portable way of populating writes to these bytes as well.
  std::thread writer([&] {
    while (!stop.load() || written == 0) {
      ++written;
      for (std::uint64_t address = range.address; address < range.address + range.bytes; address += 64 * kKiB) {
        __atomic_store_n(bytes_at(address), static_cast<unsigned char>(written), __ATOMIC_RELAXED);
      }
      for (std::uint64_t address = range.address; address < range.address + range.bytes; address += 64 * kKiB) {
        const unsigned char value = __atomic_load_n(bytes_at(address), __ATOMIC_RELAXED);
        lost += value == static_cast<unsigned char>(written) ? 0 : 1;
      }
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(device.commit(range.address, range.bytes));
  }
  stop.store(true);
  writer.join();
  EXPECT_EQ(lost, 0u);
  device.release(range);
}

TEST(HostDevice, LargeNeighboursCanBeCommittedAtOnce) {
  constexpr std::uint64_t kThreads = 3;
  constexpr std::uint64_t kBytes = 32 * kMiB;
  HostDevice device;
  const Reservation range = device.reserve(kThreads * kBytes);
  std::vector<int> committed(kThreads, 0);
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const std::uint64_t address = range.address + i * kBytes;
      committed[i] = device.commit(address, kBytes) ? 1 : 0;
      *bytes_at(address) = 1;
      *bytes_at(address + kBytes - 1) = 2;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(committed, std::vector<int>(kThreads, 1));
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    EXPECT_EQ(*bytes_at(range.address + i * kBytes), 1);
    EXPECT_EQ(*bytes_at(range.address + (i + 1) * kBytes - 1), 2);
  }
  device.release(range);
}

TEST(HostDevice, LargeDirectAllocationsAreKnownToBeZero) {
  HostDevice device;
  for (const std::uint64_t bytes : {128 * kKiB, kMiB + 1, 5 * kMiB}) {
    const DirectAllocation allocation = device.allocate_direct(bytes, 256);
    ASSERT_TRUE(allocation);
    EXPECT_TRUE(allocation.zeroed);
    device.free_direct(allocation.address, bytes, 256);
  }
  const DirectAllocation small = device.allocate_direct(1024, 256);
  EXPECT_FALSE(small.zeroed);
  device.free_direct(small.address, 1024, 256);
}

TEST(HostDevice, DirectAllocationsWorthHugePagesBeginOnOne) {
  HostDevice device;
  const DirectAllocation allocation = device.allocate_direct(4 * kMiB, 256);
  ASSERT_TRUE(allocation);
  EXPECT_EQ(allocation.address % (2 * kMiB), 0u);
  device.free_direct(allocation.address, 4 * kMiB, 256);
}

TEST(HostDevice, PagesOfSharedMemoryCanBeMappedASecondTime) {
  HostDevice device(HostBacking::shared_memory);
  const Reservation range = device.reserve(4 * kMiB);
  ASSERT_GE(range.file_descriptor, 0);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  void* second = mmap(nullptr, kMiB, PROT_READ, MAP_SHARED, range.file_descriptor, 2 * kMiB);
  ASSERT_NE(second, MAP_FAILED);
  *bytes_at(range.address + 2 * kMiB + 77) = 0x42;
  EXPECT_EQ(static_cast<unsigned char*>(second)[77], 0x42);
  ASSERT_TRUE(device.decommit(range.address + 2 * kMiB, 2 * kMiB));
  EXPECT_EQ(static_cast<unsigned char*>(second)[77], 0);
  munmap(second, kMiB);
  device.release(range);
  EXPECT_EQ(fcntl(range.file_descriptor, F_GETFD), -1);  // closed with the reservation
}

TEST(HostDevice, AnonymousReservationsHaveNoDescriptor) {
  HostDevice device;
  const Reservation range = device.reserve(1);
  EXPECT_EQ(range.file_descriptor, -1);
  device.release(range);
}

TEST(HostDevice, FailedReleaseIsLogged) {
  HostDevice device;
  const testing::CapturedLog captured;
  device.release({.address = 2 * kMiB + 1, .bytes = 2 * kMiB});  // no page begins here
  ASSERT_EQ(captured.records().size(), 1u);
  EXPECT_EQ(captured.records().front().level, LogLevel::error);
  EXPECT_NE(captured.records().front().message.find("2097152 bytes of host memory at 0x200001"), std::string::npos);
}

TEST(HostDevice, OrdinaryUseLogsNothing) {
  const testing::CapturedLog captured;
  HostDevice device;
  const Reservation range = device.reserve(40 * kMiB);
  EXPECT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  device.release(range);
  const DirectAllocation allocation = device.allocate_direct(kMiB, 2 * kMiB);
  device.free_direct(allocation.address, kMiB, 2 * kMiB);
  EXPECT_TRUE(captured.records().empty());
}

}  // namespace
}  // namespace tierpool
