#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/device.hpp"

namespace tierpool::testing {

/// What every device has to keep, whatever its memory is. A device's test instantiates it with a type that has
///   static std::shared_ptr<Device> make();         a fresh device, with at least 64 granules free
///                                                   null on a machine that has none: the tests are skipped then
///   static constexpr const char* kName;            the name users select it by
template <typename Maker>
class DeviceContract : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_ == nullptr) {
      GTEST_SKIP() << "NO DEVICE " << Maker::kName << " HERE: its contract is not tested";
    }
  }

  [[nodiscard]] Device& device() { return *device_; }
  [[nodiscard]] std::uint64_t granule() const { return device_->granularity_bytes(); }

  /// Bytes of `address` .. + `bytes` that differ from `value`; 0 for memory the processor cannot read.
  [[nodiscard]] std::uint64_t count_other_than(unsigned char value, std::uint64_t address, std::uint64_t bytes) const {
    if (!device_->host_accessible()) {
      return 0;
    }
    const auto* begin = static_cast<const unsigned char*>(pointer_at(address));
    return bytes - static_cast<std::uint64_t>(std::count(begin, begin + bytes, value));
  }

  void fill(unsigned char value, std::uint64_t address, std::uint64_t bytes) {
    if (device_->host_accessible()) {
      std::memset(pointer_at(address), value, bytes);
    }
  }

 private:
  std::shared_ptr<Device> device_ = Maker::make();
};

TYPED_TEST_SUITE_P(DeviceContract);

TYPED_TEST_P(DeviceContract, SaysWhatItIs) {
  Device& device = this->device();
  EXPECT_EQ(device.name(), TypeParam::kName);
  EXPECT_GT(device.total_bytes(), 0u);
  EXPECT_GT(device.free_bytes(), 0u);
  EXPECT_LE(device.free_bytes(), device.total_bytes());
  EXPECT_TRUE(is_power_of_two(device.granularity_bytes()));
  EXPECT_TRUE(is_power_of_two(device.max_alignment_bytes()));
  EXPECT_GE(device.max_alignment_bytes(), 256u);
}

TYPED_TEST_P(DeviceContract, ReservationsAreWholeAlignedGranulesThatNeverOverlap) {
  Device& device = this->device();
  std::vector<Reservation> reservations;
  for (const std::uint64_t bytes : {std::uint64_t{1}, this->granule(), this->granule() + 1, 5 * this->granule()}) {
    const Reservation reservation = device.reserve(bytes);
    EXPECT_NE(reservation.address, 0u);
    EXPECT_EQ(reservation.address % this->granule(), 0u);
    EXPECT_EQ(reservation.bytes, align_up(bytes, this->granule()));
    for (const Reservation& other : reservations) {
      EXPECT_TRUE(reservation.address + reservation.bytes <= other.address ||
                  other.address + other.bytes <= reservation.address);
    }
    reservations.push_back(reservation);
  }
  for (const Reservation& reservation : reservations) {
    device.release(reservation);
  }
}

TYPED_TEST_P(DeviceContract, ImpossibleReservationsThrowWithTheirSize) {
  Device& device = this->device();
  EXPECT_THROW(static_cast<void>(device.reserve(0)), DeviceError);
  for (const std::uint64_t bytes : {std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()}) {
    try {
      static_cast<void>(device.reserve(bytes));
      ADD_FAILURE() << "reserved " << bytes << " bytes";
    } catch (const DeviceError& error) {
      const std::string megabytes = bytes == std::uint64_t{1} << 63 ? "8796093022208MB" : "17592186044416MB";
      EXPECT_NE(std::string(error.what()).find(megabytes), std::string::npos) << error.what();
    }
  }
}

TYPED_TEST_P(DeviceContract, CommittedMemoryIsZeroAndWritable) {
  Device& device = this->device();
  const Reservation range = device.reserve(3 * this->granule());
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  if (device.commits_zeroed()) {
    EXPECT_EQ(this->count_other_than(0, range.address, range.bytes), 0u);
  }
  this->fill(0x5a, range.address, range.bytes);
  EXPECT_EQ(this->count_other_than(0x5a, range.address, range.bytes), 0u);
  device.release(range);
}

TYPED_TEST_P(DeviceContract, MemoryIsZeroAgainAfterDecommitAndCommit) {
  Device& device = this->device();
  const Reservation range = device.reserve(3 * this->granule());
  const std::uint64_t middle = range.address + this->granule();
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  this->fill(0x5a, range.address, range.bytes);
  ASSERT_TRUE(device.decommit(middle, this->granule()));
  ASSERT_TRUE(device.commit(middle, this->granule()));
  if (device.commits_zeroed()) {
    EXPECT_EQ(this->count_other_than(0, middle, this->granule()), 0u);
  }
  EXPECT_EQ(this->count_other_than(0x5a, range.address, this->granule()), 0u);
  EXPECT_EQ(this->count_other_than(0x5a, middle + this->granule(), this->granule()), 0u);
  device.release(range);
}

TYPED_TEST_P(DeviceContract, SecondCommitKeepsContents) {
  Device& device = this->device();
  const Reservation range = device.reserve(4 * this->granule());
  ASSERT_TRUE(device.commit(range.address + this->granule(), this->granule()));
  this->fill(0x77, range.address + this->granule(), this->granule());
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_EQ(this->count_other_than(0x77, range.address + this->granule(), this->granule()), 0u);
  device.release(range);
}

TYPED_TEST_P(DeviceContract, DecommitOfUncommittedMemoryAndEmptyRangesAreHarmless) {
  Device& device = this->device();
  const Reservation range = device.reserve(2 * this->granule());
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  EXPECT_TRUE(device.commit(range.address, 0));
  EXPECT_TRUE(device.decommit(range.address, 0));
  EXPECT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  device.release(range);
}

TYPED_TEST_P(DeviceContract, DirectAllocationsHaveTheirAlignmentAndTellTheTruthAboutZeros) {
  Device& device = this->device();
  for (std::uint64_t alignment = 1; alignment <= device.max_alignment_bytes(); alignment *= 2) {
    for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, 128 * kKiB - 1, 128 * kKiB, 4 * kMiB + 1}) {
      const DirectAllocation allocation = device.allocate_direct(bytes, alignment);
      ASSERT_TRUE(allocation) << bytes << " bytes at " << alignment;
      EXPECT_EQ(allocation.address % alignment, 0u) << bytes << " bytes at " << alignment;
      if (allocation.zeroed) {
        EXPECT_EQ(this->count_other_than(0, allocation.address, bytes), 0u);
      }
      this->fill(0x3c, allocation.address, bytes);
      EXPECT_EQ(this->count_other_than(0x3c, allocation.address, bytes), 0u);
      device.free_direct(allocation.address, bytes, alignment);
    }
  }
}

TYPED_TEST_P(DeviceContract, ImpossibleDirectAllocationsAreEmpty) {
  Device& device = this->device();
  constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
  for (const std::uint64_t bytes : {kLargest, kLargest - kMiB, kLargest / 2, device.total_bytes() * 64}) {
    for (const std::uint64_t alignment : {std::uint64_t{256}, device.max_alignment_bytes()}) {
      EXPECT_FALSE(device.allocate_direct(bytes, alignment)) << bytes << " bytes at " << alignment;
    }
  }
}

TYPED_TEST_P(DeviceContract, CopyMovesBytes) {
  Device& device = this->device();
  const Reservation range = device.reserve(2 * this->granule());
  const std::uint64_t other = range.address + this->granule();
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  this->fill(0x11, range.address, this->granule());
  this->fill(0x22, other, this->granule());
  device.copy(other + 1, range.address, this->granule() - 2);
  device.copy(other, range.address, 0);
  EXPECT_EQ(this->count_other_than(0x22, other, 1), 0u);
  EXPECT_EQ(this->count_other_than(0x11, other + 1, this->granule() - 2), 0u);
  EXPECT_EQ(this->count_other_than(0x22, other + this->granule() - 1, 1), 0u);
  device.release(range);
}

TYPED_TEST_P(DeviceContract, NeighbouringGranulesCanBeCommittedFromManyThreads) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kGranules = 2;
  Device& device = this->device();
  const Reservation range = device.reserve(kThreads * kGranules * this->granule());
  std::vector<std::uint64_t> wrong(kThreads, 0);
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const std::uint64_t bytes = kGranules * this->granule();
      const std::uint64_t address = range.address + i * bytes;
      const auto value = static_cast<unsigned char>(i + 1);
      for (int round = 0; round < 3; ++round) {
        wrong[i] += device.commit(address, bytes) ? 0 : 1;
        wrong[i] += device.commits_zeroed() ? this->count_other_than(0, address, bytes) : 0;
        this->fill(value, address, bytes);
        wrong[i] += device.commit(address, bytes) ? 0 : 1;
        wrong[i] += this->count_other_than(value, address, bytes);
        wrong[i] += device.decommit(address, bytes) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, std::vector<std::uint64_t>(kThreads, 0));
  device.release(range);
}

TYPED_TEST_P(DeviceContract, EveryCallMayComeFromAnyThread) {
  constexpr std::size_t kThreads = 4;
  Device& device = this->device();
  std::vector<int> refused(kThreads, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        const Reservation range = device.reserve(this->granule());
        const DirectAllocation small = device.allocate_direct(1000, 256);
        const DirectAllocation large = device.allocate_direct(kMiB, 256);
        refused[i] += small && large && device.commit(range.address, range.bytes) ? 0 : 1;
        refused[i] += device.free_bytes() <= device.total_bytes() ? 0 : 1;
        device.free_direct(large.address, kMiB, 256);
        device.free_direct(small.address, 1000, 256);
        device.release(range);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(refused, std::vector<int>(kThreads, 0));
}

REGISTER_TYPED_TEST_SUITE_P(DeviceContract, SaysWhatItIs, ReservationsAreWholeAlignedGranulesThatNeverOverlap,
                            ImpossibleReservationsThrowWithTheirSize, CommittedMemoryIsZeroAndWritable,
                            MemoryIsZeroAgainAfterDecommitAndCommit, SecondCommitKeepsContents,
                            DecommitOfUncommittedMemoryAndEmptyRangesAreHarmless,
                            DirectAllocationsHaveTheirAlignmentAndTellTheTruthAboutZeros,
                            ImpossibleDirectAllocationsAreEmpty, CopyMovesBytes,
                            NeighbouringGranulesCanBeCommittedFromManyThreads, EveryCallMayComeFromAnyThread);

}  // namespace tierpool::testing
