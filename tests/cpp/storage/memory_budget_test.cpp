#include "tierpool/storage/memory_budget.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

TEST(MemoryBudget, SharesAreCountedByPurposeAndGivenBack) {
  MemoryBudget budget("host", 100);
  MemoryBudget::Share slots = budget.take(MemoryPurpose::slots, 60);
  {
    const MemoryBudget::Share cache = budget.take(MemoryPurpose::kv_cache, 40);
    EXPECT_EQ(budget.used_bytes(), 100u);
    EXPECT_EQ(budget.used_bytes(MemoryPurpose::slots), 60u);
    EXPECT_EQ(budget.used_bytes(MemoryPurpose::kv_cache), 40u);
  }
  EXPECT_EQ(budget.used_bytes(), 60u);
  MemoryBudget::Share moved = std::move(slots);
  EXPECT_EQ(moved.bytes(), 60u);
  EXPECT_EQ(budget.used_bytes(), 60u);
  moved = MemoryBudget::Share();
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_EQ(budget.peak_bytes(), 100u);
}

TEST(MemoryBudget, RefusalNamesPurposeBytesLimitAndRemedy) {
  MemoryBudget budget("host", 4 * kMiB);
  const MemoryBudget::Share weights = budget.take(MemoryPurpose::resident_weights, 3 * kMiB);
  try {
    static_cast<void>(budget.take(MemoryPurpose::slots, 2 * kMiB));
    ADD_FAILURE() << "took more than the limit";
  } catch (const BudgetError& error) {
    EXPECT_STREQ(error.what(),
                 "slots needs 2097152 bytes (2MB) of 'host', but 3MB of the limit of 4MB are taken "
                 "(resident_weights 3MB): raise the memory limit by 1048576 bytes, or use fewer slots");
  }
  EXPECT_EQ(budget.used_bytes(), 3 * kMiB);
  EXPECT_THROW(static_cast<void>(budget.take(MemoryPurpose::margin, ~std::uint64_t{0})), BudgetError);
}

TEST(MemoryBudget, IsNeverExceededByThreadsThatTakeAtOnce) {
  MemoryBudget budget("host", 1000);
  std::atomic<std::uint64_t> held{0};
  std::atomic<std::uint64_t> violations{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 2000; ++i) {
        const std::uint64_t bytes = random() % 600;
        try {
          const auto purpose = static_cast<MemoryPurpose>(random() % kMemoryPurposes);
          const MemoryBudget::Share share = budget.take(purpose, bytes);
          violations += held.fetch_add(bytes) + bytes > 1000 ? 1 : 0;
          held.fetch_sub(bytes);
        } catch (const BudgetError&) {
          violations += bytes == 0 ? 1 : 0;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(violations.load(), 0u);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_LE(budget.peak_bytes(), 1000u);
}

}  // namespace
}  // namespace tierpool
