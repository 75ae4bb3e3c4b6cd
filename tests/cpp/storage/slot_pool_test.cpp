#include "tierpool/storage/slot_pool.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kPage = 4096;

TEST(SlotPool, CutsOneCommittedSlabIntoEqualSlots) {
  SimulatedDevice device(kGiB);
  MemoryBudget budget("simulated", kGiB);
  {
    SlotPool slots(device, budget, 3 * kMiB, 5, kPage);
    EXPECT_EQ(device.committed_bytes(), 16 * kMiB);  // whole granules
    EXPECT_EQ(budget.used_bytes(MemoryPurpose::slots), 16 * kMiB);
    EXPECT_EQ(slots.free_count(), 5u);
    EXPECT_EQ(slots.file_descriptor(), -1);
    std::set<std::uint64_t> addresses;
    for (std::uint32_t i = 0; i < 5; ++i) {
      const SlotId slot = slots.take().value();
      EXPECT_EQ(slot, i);
      EXPECT_EQ(slots.offset_bytes(slot), slot * 3 * kMiB);
      addresses.insert(slots.address(slot));
    }
    EXPECT_EQ(addresses.size(), 5u);
    EXPECT_EQ(*addresses.rbegin() - *addresses.begin(), 12 * kMiB);
    EXPECT_EQ(slots.take(), std::nullopt);
    EXPECT_EQ(device.call_count(DeviceCall::commit), 1u);
  }
  EXPECT_EQ(device.reserved_bytes(), 0u);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_EQ(device.misuse_count(), 0u);
}

TEST(SlotPool, RecyclesTheSlotGivenBackLast) {
  SimulatedDevice device(kGiB);
  MemoryBudget budget("simulated", kGiB);
  SlotPool slots(device, budget, kPage, 4, kPage);
  const SlotId first = slots.take().value();
  const SlotId second = slots.take().value();
  slots.give_back(first);
  slots.give_back(second);
  EXPECT_EQ(slots.take(), second);
  EXPECT_EQ(slots.take(), first);
}

TEST(SlotPool, RefusesSlotsThatAreNotTaken) {
  SimulatedDevice device(kGiB);
  MemoryBudget budget("simulated", kGiB);
  SlotPool slots(device, budget, kPage, 2, kPage);
  EXPECT_THROW(slots.give_back(0), InvalidHandleError);
  EXPECT_THROW(slots.give_back(2), InvalidHandleError);
  const SlotId slot = slots.take().value();
  slots.give_back(slot);
  EXPECT_THROW(slots.give_back(slot), InvalidHandleError);
  EXPECT_EQ(slots.free_count(), 2u);
}

TEST(SlotPool, RefusesWhatMakesNoSlots) {
  SimulatedDevice device(kGiB);
  MemoryBudget budget("simulated", kGiB);
  EXPECT_THROW(SlotPool(device, budget, kPage, 0, kPage), ConfigError);
  EXPECT_THROW(SlotPool(device, budget, 0, 2, kPage), ConfigError);
  EXPECT_THROW(SlotPool(device, budget, kPage + 512, 2, kPage), ConfigError);
  EXPECT_THROW(SlotPool(device, budget, std::uint64_t{1} << 50, 1u << 20, kPage), ConfigError);
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST(SlotPool, WhatCannotBeHadLeavesNothingBehind) {
  SimulatedDevice device(kGiB);
  MemoryBudget small("simulated", kMiB);
  EXPECT_THROW(SlotPool(device, small, kMiB, 2, kPage), BudgetError);
  EXPECT_EQ(device.call_count(DeviceCall::reserve), 0u);

  MemoryBudget budget("simulated", kGiB);
  for (const DeviceCall call : {DeviceCall::reserve, DeviceCall::commit}) {
    device.fail(call);
    EXPECT_THROW(SlotPool(device, budget, kMiB, 2, kPage), DeviceError);
    device.recover();
    EXPECT_EQ(device.reserved_bytes(), 0u);
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
}

TEST(SlotPool, HostSlotsCanBeMappedASecondTime) {
  HostDevice device(HostBacking::shared_memory);
  MemoryBudget budget("host", kGiB);
  const SlotPool slots(device, budget, testing::system_page_bytes(), 3, testing::system_page_bytes());
  EXPECT_GE(slots.file_descriptor(), 0);
}

}  // namespace
}  // namespace tierpool
