// What happens while a model is loaded, and what is left when that fails.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "support/streamed_model_fixture.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/engine/streamed_model.hpp"

namespace tierpool {
namespace {

using StreamedModelLoadingTest = testing::StreamedModelTest;

TEST_F(StreamedModelLoadingTest, LoadingFillsTheSlotsWithExpertsOfEveryLayer) {
  options_.slots = 2 * kLayers;
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(0, 1)), 0);
  const StreamedModelStatistics statistics = model.statistics();
  EXPECT_EQ(statistics.gate.hits, kLayers * kUsed);
  EXPECT_EQ(statistics.gate.read_bytes, 0U);
  EXPECT_GE(statistics.loaded_bytes, kLayers * kUsed * 2 * (stride_ - 2 * page_));
}

TEST_F(StreamedModelLoadingTest, ABudgetThatIsTooSmallIsRefusedAndNothingStays) {
  options_.limit_bytes = 2 * kMiB;
  EXPECT_THROW(StreamedModel{options_}, BudgetError);
  EXPECT_TRUE(holds({0, 0, bytes_.size()}));  // the mapping shows the file
}

TEST_F(StreamedModelLoadingTest, ADiskThatFailsWhileLoadingIsRefusedAndNothingStays) {
  Disk::failing_reads = 1;
  EXPECT_THROW(StreamedModel{options_}, ReadError);
  EXPECT_TRUE(holds({0, 0, bytes_.size()}));
}

TEST_F(StreamedModelLoadingTest, TensorsThatAreNotEqualPartsAreRefused) {
  options_.layers[0].tensors[0].extent.size_bytes -= 1;
  EXPECT_THROW(StreamedModel{options_}, ConfigError);
}

TEST_F(StreamedModelLoadingTest, LoadingIsCancelledAtAnyReadAndNothingStays) {
  for (int reads = 0;; ++reads) {
    LoadingWatch watch;
    options_.watch = &watch;
    std::atomic<int> left = reads;
    Disk::on_read = [&] {
      if (left-- == 0) {
        watch.cancel();
      }
    };
    try {
      StreamedModel model(options_);
      ASSERT_GT(reads, 4);
      EXPECT_FALSE(watch.is_cancelled());
      break;
    } catch (const CancelledError&) {
      ASSERT_TRUE(holds({0, 0, bytes_.size()})) << reads;  // the mapping shows the file
    }
  }
}

TEST_F(StreamedModelLoadingTest, LoadingCountsWhatItReads) {
  for (const std::uint32_t experts : {kExperts, 0U}) {
    options_.experts = experts;
    options_.slots = experts > 0 ? 6 : 2;
    LoadingWatch watch;
    options_.watch = &watch;
    std::mutex mutex;
    std::vector<LoadingProgress> seen;
    Disk::on_read = [&] {
      const LoadingProgress progress = watch.progress();
      const std::lock_guard<std::mutex> lock(mutex);
      seen.push_back(progress);
    };
    const StreamedModel model(options_);
    const LoadingProgress last = watch.progress();
    EXPECT_EQ(last.read_bytes, last.total_bytes);
    EXPECT_GE(model.statistics().loaded_bytes + page_, last.total_bytes);  // the file's last page is no whole one
    const std::lock_guard<std::mutex> lock(mutex);
    ASSERT_GT(seen.size(), 2U);
    EXPECT_EQ(seen.front().read_bytes, 0U);
    for (const LoadingProgress& progress : seen) {
      EXPECT_LE(progress.read_bytes, progress.total_bytes);
    }
  }
}

}  // namespace
}  // namespace tierpool
