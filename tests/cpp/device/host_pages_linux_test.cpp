#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/host_pages.hpp"
#include "tierpool/device/page_touch.hpp"

namespace tierpool {
namespace {

/// Bytes of the range that have memory behind them.
std::uint64_t resident_bytes(std::uint64_t address, std::uint64_t bytes) {
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages(bytes / page_bytes);
  EXPECT_EQ(mincore(pointer_at(address), bytes, pages.data()), 0);
  const auto resident = std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<std::uint64_t>(resident) * page_bytes;
}

struct ProcessMemory {
  std::uint64_t mapped_bytes = 0;
  std::uint64_t resident_bytes = 0;
};

ProcessMemory process_memory() {
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  ProcessMemory memory;
  std::ifstream("/proc/self/statm") >> memory.mapped_bytes >> memory.resident_bytes;
  EXPECT_GT(memory.resident_bytes, 0u);
  return {.mapped_bytes = memory.mapped_bytes * page_bytes, .resident_bytes = memory.resident_bytes * page_bytes};
}

class HostPages : public ::testing::Test {
 protected:
  ~HostPages() override { device_.release(range_); }

  HostDevice device_;
  Reservation range_ = device_.reserve(48 * kMiB);
};

TEST_F(HostPages, ReservationsCostNoMemory) { EXPECT_EQ(resident_bytes(range_.address, range_.bytes), 0u); }

TEST_F(HostPages, CommitPopulatesWhatItIsAskedForAndNoMore) {
  ASSERT_TRUE(device_.commit(range_.address + 4 * kMiB, 2 * kMiB));
  EXPECT_EQ(resident_bytes(range_.address, range_.bytes), 2 * kMiB);
}

TEST_F(HostPages, ParallelCommitPopulatesEveryPage) {
  ASSERT_TRUE(device_.commit(range_.address, range_.bytes - 2 * kMiB));
  EXPECT_EQ(resident_bytes(range_.address, range_.bytes - 2 * kMiB), range_.bytes - 2 * kMiB);
  EXPECT_EQ(resident_bytes(range_.address + range_.bytes - 2 * kMiB, 2 * kMiB), 0u);
}

TEST_F(HostPages, DecommitGivesMemoryBack) {
  ASSERT_TRUE(device_.commit(range_.address, range_.bytes));
  ASSERT_TRUE(device_.decommit(range_.address + 2 * kMiB, 40 * kMiB));
  EXPECT_EQ(resident_bytes(range_.address, range_.bytes), 8 * kMiB);
}

TEST_F(HostPages, TouchPopulatesEveryPage) {
  const std::uint64_t before = process_memory().resident_bytes;
  touch_pages(range_.address, 6 * kMiB);
  EXPECT_EQ(resident_bytes(range_.address, 6 * kMiB), 6 * kMiB);
  // Pages that were only read are in core as well, but share one page of zeros.
  EXPECT_GT(process_memory().resident_bytes, before + 3 * kMiB);
}

TEST_F(HostPages, AlignmentLeavesNoAddressesBehind) {
  const std::uint64_t before = process_memory().mapped_bytes;
  for (int i = 0; i < 300; ++i) {
    device_.release(device_.reserve(2 * kMiB));
    const DirectAllocation allocation = device_.allocate_direct(200 * kKiB, 2 * kMiB);
    device_.free_direct(allocation.address, 200 * kKiB, 2 * kMiB);
  }
  EXPECT_LT(process_memory().mapped_bytes, before + 16 * kMiB);
}

TEST_F(HostPages, CommitOfMemoryThatCannotBeWrittenFails) {
  ASSERT_EQ(mprotect(pointer_at(range_.address + 20 * kMiB), 2 * kMiB, PROT_NONE), 0);
  EXPECT_FALSE(device_.commit(range_.address + 20 * kMiB, 2 * kMiB));
  EXPECT_FALSE(device_.commit(range_.address, range_.bytes));
  EXPECT_TRUE(device_.commit(range_.address, 20 * kMiB));
}

TEST_F(HostPages, LargeDirectAllocationsArePopulatedAsTheyAreTouched) {
  const DirectAllocation allocation = device_.allocate_direct(32 * kMiB, 256);
  ASSERT_TRUE(allocation);
  EXPECT_EQ(resident_bytes(allocation.address, 32 * kMiB), 0u);
  *static_cast<unsigned char*>(pointer_at(allocation.address)) = 1;
  EXPECT_GT(resident_bytes(allocation.address, 32 * kMiB), 0u);
  device_.free_direct(allocation.address, 32 * kMiB, 256);
}

TEST_F(HostPages, FreedDirectAllocationsAreUnmapped) {
  const DirectAllocation allocation = device_.allocate_direct(5 * kMiB + 1, 256);
  ASSERT_TRUE(allocation);
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  device_.free_direct(allocation.address, 5 * kMiB + 1, 256);
  unsigned char page = 0;
  EXPECT_NE(mincore(pointer_at(allocation.address), page_bytes, &page), 0);
  EXPECT_NE(mincore(pointer_at(allocation.address + 5 * kMiB), page_bytes, &page), 0);
}

TEST_F(HostPages, MovedPagesShowTheirBytesAtTheTargetAndLeaveTheirPlace) {
  ASSERT_TRUE(device_.commit(range_.address, 2 * kMiB));
  auto* bytes = static_cast<unsigned char*>(pointer_at(range_.address));
  std::fill_n(bytes, 64 * kKiB, static_cast<unsigned char>(0x31));
  auto* source =
      static_cast<unsigned char*>(mmap(nullptr, 64 * kKiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::fill_n(source, 64 * kKiB, static_cast<unsigned char>(0x32));
  ASSERT_TRUE(move_pages_over(address_of(source), 64 * kKiB, range_.address + 16 * kKiB));
  EXPECT_EQ(std::count(bytes, bytes + 16 * kKiB, 0x31), 16 * 1024);
  EXPECT_EQ(std::count(bytes + 16 * kKiB, bytes + 80 * kKiB, 0x32), 64 * 1024);
  EXPECT_NE(msync(source, 64 * kKiB, MS_ASYNC), 0);  // nothing is mapped there any more
}

TEST(HostMappings, CountEveryMappingOfThisProcess) {
  const HostMappings before = host_mappings();
  EXPECT_GT(before.used, 10u);
  EXPECT_GT(before.limit, before.used);
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  void* range = mmap(nullptr, 100 * page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(range, MAP_FAILED);
  for (std::uint64_t page = 1; page < 100; page += 2) {
    ASSERT_EQ(mprotect(pointer_at(address_of(range) + page * page_bytes), page_bytes, PROT_NONE), 0);
  }
  EXPECT_GE(host_mappings().used, before.used + 90);
  munmap(range, 100 * page_bytes);
}

}  // namespace
}  // namespace tierpool
