#include "tierpool/storage/unit_loader.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/fake_clock.hpp"
#include "support/fake_source.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"

namespace tierpool {
namespace {

TEST(UnitLoader, PutsTheExtentsOneBehindTheOtherIntoTheSlot) {
  const std::uint64_t page = testing::system_page_bytes();
  const auto first = std::make_shared<testing::FakeSource>(testing::random_bytes(20 * page, 1));
  const auto second = std::make_shared<testing::FakeSource>(testing::random_bytes(5 * page - 100, 2));
  const UnitTable units({{{0, 7 * page, 2 * page}, {1, 4 * page, page}, {0, page, page}}, {}}, page);
  testing::FakeClock clock;
  HostDevice device;
  MemoryBudget budget("host", kGiB);
  SlotPool slots(device, budget, 4 * page, 2, page);
  DirectReader reader({first, second}, {}, clock);
  UnitLoader loader(reader, units, slots);

  const ReadHandle read = loader.load(0, 1, ReadPriority::demand);
  ASSERT_EQ(reader.wait(read), ReadOutcome::complete);
  const std::uint64_t address = slots.address(1);
  EXPECT_TRUE(testing::holds(address, first->bytes(), 7 * page, 2 * page));
  EXPECT_TRUE(testing::holds(address + 2 * page, second->bytes(), 4 * page, page));
  EXPECT_TRUE(testing::holds(address + 3 * page, first->bytes(), page, page));
  EXPECT_TRUE(testing::holds(slots.address(0), std::vector<unsigned char>(1, 0), 0, 4 * page));  // untouched
  EXPECT_EQ(reader.wait(loader.load(1, 0, ReadPriority::prefetch)), ReadOutcome::complete);
  EXPECT_EQ(reader.statistics().read_bytes, 4 * page - 100);
}

TEST(UnitLoader, RefusesUnitsThatNoSlotCanHold) {
  const std::uint64_t page = testing::system_page_bytes();
  const auto source = std::make_shared<testing::FakeSource>(testing::random_bytes(20 * page, 1));
  const UnitTable units({{{0, 0, 2 * page}}}, page);
  testing::FakeClock clock;
  HostDevice device;
  MemoryBudget budget("host", kGiB);
  const SlotPool slots(device, budget, page, 2, page);
  DirectReader reader({source}, {}, clock);
  EXPECT_THROW(UnitLoader(reader, units, slots), ConfigError);
}

}  // namespace
}  // namespace tierpool
