// A model in a real file, computed by a graph that is not ggml's: what it reads where the engine would must be the
// file.

#include "tierpool/engine/streamed_model.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/captured_log.hpp"
#include "support/fake_graph.hpp"
#include "support/streamed_model_fixture.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using StreamedModelTest = testing::StreamedModelTest;

TEST_F(StreamedModelTest, ComputesFromTheFilesBytes) {
  options_.slots = 16;
  StreamedModel model(options_);
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    ASSERT_EQ(forward(model, choose(random, round % 4)), 0) << round;
  }
  const StreamedModelStatistics statistics = model.statistics();
  // Rounds of 0, 1, 2 and 3 tokens, in 4 layers, 2 experts each.
  EXPECT_EQ(statistics.gate.hits + statistics.gate.misses, 15U * (0 + 1 + 2 + 3) * kLayers * kUsed);
  EXPECT_GT(statistics.gate.hits, 0U);
  EXPECT_GT(statistics.gate.read_bytes, 0U);
  EXPECT_GT(statistics.loaded_bytes, 0U);
  EXPECT_LE(statistics.peak_bytes, statistics.limit_bytes);
  const std::vector<LayerRequests> layers = model.layer_requests();
  EXPECT_EQ(layers.size(), kLayers);
  std::uint64_t read_bytes = 0;
  for (const LayerRequests& layer : layers) {
    read_bytes += layer.read_bytes;
  }
  EXPECT_EQ(read_bytes, statistics.gate.read_bytes);  // without what loading read
}

TEST_F(StreamedModelTest, TwoExpertsInEachOthersSlotsAreNoticed) {
  const TensorBytes& tensor = options_.layers[1].tensors[0];
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(4, 5)), 0);  // others, so that these two have to be read
  Disk::swapped_bytes = static_cast<std::int64_t>(2 * page_);
  Disk::swapped_second = static_cast<std::int64_t>(align_up(expert_bytes(tensor, 3).offset_bytes, page_));
  Disk::swapped_first = static_cast<std::int64_t>(align_up(expert_bytes(tensor, 2).offset_bytes, page_));
  EXPECT_EQ(forward(model, same(2, 3)), 2);
}

TEST_F(StreamedModelTest, DenseLayersGoAroundTheRing) {
  make_dense();
  StreamedModel model(options_);
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(dense_forward(model), 0);
  }
  EXPECT_EQ(model.statistics().gate.hits + model.statistics().gate.misses, 5U * kLayers);
}

TEST_F(StreamedModelTest, EveryByteCountsOnceWhetherReadWhileLoadingOrForALayer) {
  options_.experts = 0;
  options_.stop_node = "inp";
  std::uint64_t resident_bytes = 0;  // pages that hold any of what stays; all others are the layers'
  for (const Extent& extent : options_.resident) {
    resident_bytes += align_up(extent.offset_bytes + extent.size_bytes, page_) - align_down(extent.offset_bytes, page_);
  }
  const std::uint64_t layer_bytes = align_up(bytes_.size(), page_) - resident_bytes;
  for (int round = 0; round < 50; ++round) {  // reads for a ring are under way when loading ends
    options_.slots = 1 + round % kLayers;
    const bool all_fit = options_.slots == kLayers;
    StreamedModel model(options_);
    EXPECT_EQ(dense_forward(model), 0);
    const StreamedModelStatistics statistics = model.statistics();
    EXPECT_EQ(statistics.loaded_bytes, all_fit ? bytes_.size() : resident_bytes) << options_.slots;
    EXPECT_EQ(statistics.gate.read_bytes, all_fit ? 0 : layer_bytes) << options_.slots;
    EXPECT_EQ(statistics.read_busy_ns == 0, all_fit) << options_.slots;
  }
}

TEST_F(StreamedModelTest, WhatFailedWhileTheFileWasAnotherIsReadAnew) {
  make_dense();
  const Extent first = options_.layers[0].tensors[0].extent;
  Disk::broken_bytes = static_cast<std::int64_t>(first.size_bytes - page_);
  Disk::broken_reads = 0;
  Disk::broken_first = static_cast<std::int64_t>(align_up(first.offset_bytes, page_));
  StreamedModel model(options_);  // begins to read the first layer ahead
  while (Disk::broken_reads == 0) {
    std::this_thread::yield();
  }
  struct stat status = {};
  ASSERT_EQ(stat(file_->path().c_str(), &status), 0);
  ASSERT_EQ(utimensat(AT_FDCWD, file_->path().c_str(), nullptr, 0), 0);
  EXPECT_THROW(dense_forward(model), ReadError);
  Disk::heal();
  const std::array<timespec, 2> times{status.st_atim, status.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, file_->path().c_str(), times.data(), 0), 0);
  EXPECT_EQ(dense_forward(model), 0);
}

TEST_F(StreamedModelTest, AReadThatFailsIsThrownAndTheNextForwardWorks) {
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(0, 1)), 0);
  for (int reads = 1; reads <= 6; ++reads) {
    Disk::failing_reads = reads;
    EXPECT_THROW(forward(model, same(2 + reads % 2 * 2, 3 + reads % 2 * 2)), ReadError);
    Disk::failing_reads = 0;
    EXPECT_EQ(forward(model, same(2, 3)), 0);
    EXPECT_EQ(forward(model, same(0, 1)), 0);
  }
}

TEST_F(StreamedModelTest, AFileThatRefusesDirectReadsIsCounted) {
  options_.pread_call = [](int descriptor, void* destination, std::size_t bytes, off_t offset) -> ssize_t {
    if ((fcntl(descriptor, F_GETFL) & O_DIRECT) != 0) {
      errno = EINVAL;
      return -1;
    }
    return pread(descriptor, destination, bytes, offset);
  };
  const testing::CapturedLog log;
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(4, 5)), 0);
  EXPECT_EQ(model.statistics().buffered_files, 1U);
  EXPECT_EQ(log.records().size(), 1U);
}

TEST_F(StreamedModelTest, AReadThatEndsShortIsThrown) {
  StreamedModel model(options_);
  Disk::is_short = true;
  EXPECT_THROW(forward(model, same(2, 3)), ReadError);
  Disk::is_short = false;
  EXPECT_EQ(forward(model, same(2, 3)), 0);
}

TEST_F(StreamedModelTest, AFileThatChangedIsNoticedEvenWhenNothingIsRead) {
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, std::vector<Tokens>(kLayers)), 0);
  ASSERT_EQ(truncate(file_->path().c_str(), static_cast<off_t>(page_)), 0);
  EXPECT_THROW(forward(model, std::vector<Tokens>(kLayers)), ReadError);
}

TEST_F(StreamedModelTest, AFileThatIsGoneIsNoticed) {
  StreamedModel model(options_);
  ASSERT_EQ(unlink(file_->path().c_str()), 0);
  try {
    forward(model, same(0, 1));
    FAIL();
  } catch (const ReadError& error) {
    EXPECT_NE(std::string(error.what()).find("removed"), std::string::npos) << error.what();
  }
}

TEST_F(StreamedModelTest, CancelFromAnotherThreadEndsTheForward) {
  StreamedModel model(options_);
  std::mt19937 random(7);
  std::atomic<bool> done{false};
  std::thread canceller([&] {
    while (!done) {
      model.cancel();
      std::this_thread::yield();
    }
  });
  int cancelled = 0;
  for (int round = 0; round < 200; ++round) {
    try {
      EXPECT_EQ(forward(model, choose(random, 1)), 0);
    } catch (const CancelledError&) {
      ++cancelled;
    }
  }
  done = true;
  canceller.join();
  EXPECT_GT(cancelled, 0);
  EXPECT_EQ(forward(model, same(0, 1)), 0);
}

TEST_F(StreamedModelTest, MoreExpertsThanSlotsIsABudgetError) {
  options_.slots = 3;
  StreamedModel model(options_);
  const std::vector<Tokens> chosen(kLayers, Tokens{{0, 1}, {2, 3}});
  EXPECT_THROW(forward(model, chosen), BudgetError);
  EXPECT_EQ(forward(model, same(0, 1)), 0);
}

TEST_F(StreamedModelTest, AfterCloseTheMappingShowsTheFileAndCountersStay) {
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(2, 3)), 0);
  const std::uint64_t misses = model.statistics().gate.misses;
  model.close();
  model.close();
  model.cancel();
  EXPECT_TRUE(holds({0, 0, bytes_.size()}));
  EXPECT_EQ(model.statistics().gate.misses, misses);
  EXPECT_EQ(model.statistics().used_bytes, 0U);
  EXPECT_EQ(model.layer_requests().at(0).misses, kUsed);
  EXPECT_THROW(model.begin(), Error);
}

}  // namespace
}  // namespace tierpool
