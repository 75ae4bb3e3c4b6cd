// A model in a real file, computed by a graph that is not ggml's: what it reads where the engine would must be the
// file.

#include "tierpool/engine/streamed_model.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/fake_graph.hpp"
#include "support/file_mapping.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint32_t kLayers = 4;
constexpr std::uint32_t kExperts = 6;
constexpr std::size_t kUsed = 2;

/// What the disk does to reads of weights while a model is used.
struct Disk {
  static inline std::atomic<int> failing_reads{0};
  static inline std::atomic<std::int64_t> broken_first{-1};  // reads that begin in this stretch fail
  static inline std::atomic<std::int64_t> broken_bytes{0};
  static inline std::atomic<int> broken_reads{0};
  static inline std::atomic<bool> is_short{false};
  static inline std::atomic<std::int64_t> swapped_first{-1};  // reads inside one extent come from the other
  static inline std::atomic<std::int64_t> swapped_second{-1};
  static inline std::atomic<std::int64_t> swapped_bytes{0};

  static void heal() {
    failing_reads = 0;
    broken_first = -1;
    is_short = false;
    swapped_first = -1;
    swapped_bytes = 0;
  }
  static ssize_t read(int descriptor, void* destination, std::size_t bytes, off_t offset) {
    if (failing_reads > 0) {
      --failing_reads;
      errno = EIO;
      return -1;
    }
    if (broken_first >= 0 && offset >= broken_first && offset < broken_first + broken_bytes) {
      ++broken_reads;
      errno = EIO;
      return -1;
    }
    const auto inside = [offset](std::int64_t first) { return offset >= first && offset < first + swapped_bytes; };
    if (swapped_first >= 0 && inside(swapped_first)) {
      offset += swapped_second - swapped_first;
    } else if (swapped_first >= 0 && inside(swapped_second)) {
      offset -= swapped_second - swapped_first;
    }
    return is_short ? 0 : pread(descriptor, destination, bytes, offset);
  }
};

class StreamedModelTest : public ::testing::Test {
 protected:
  StreamedModelTest() {
    std::uint64_t offset = 0;
    const auto place = [&offset](std::uint64_t bytes) {
      offset += bytes;
      return Extent{0, offset - bytes, bytes};
    };
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      options_.resident.push_back(place(5000));
      LayerBytes bytes{layer, {}};
      for (const char* name : {"up", "down"}) {
        bytes.tensors.push_back({"blk." + std::to_string(layer) + "." + name, place(kExperts * stride_)});
      }
      options_.layers.push_back(bytes);
    }
    bytes_ = testing::random_bytes(offset, 33);
    file_ = std::make_unique<testing::TemporaryFile>(bytes_);
    mapping_ = std::make_unique<testing::FileMapping>(file_->path(), 0, align_up(offset, page_));
    options_.files = {{file_->path(), mapping_->address(), 0, align_up(offset, page_)}};
    options_.stop_node = "topk";
    options_.experts = kExperts;
    options_.slots = 6;
    options_.limit_bytes = 64 * kMiB;
    options_.reserved_bytes = {{MemoryPurpose::kv_cache, kMiB}};
    options_.reader.threads = 2;
    options_.uncovered = Uncovered::refused;
    options_.pread_call = &Disk::read;
  }
  ~StreamedModelTest() override { Disk::heal(); }

  [[nodiscard]] bool holds(const Extent& extent) const {
    return testing::holds(mapping_->address() + extent.offset_bytes, bytes_, extent.offset_bytes, extent.size_bytes);
  }
  [[nodiscard]] Extent expert_bytes(const TensorBytes& tensor, std::int32_t expert) const {
    return {0, tensor.extent.offset_bytes + static_cast<std::uint64_t>(expert) * stride_, stride_};
  }

  using Tokens = std::vector<std::vector<std::int32_t>>;
  /// One forward with the given choice in every layer; how many tensors did not hold what the file does.
  int forward(StreamedModel& model, const std::vector<Tokens>& chosen) {
    testing::FakeGraph graph;
    int wrong = 0;
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      GgmlTensor* experts = graph.experts("topk-" + std::to_string(layer), chosen[layer], kUsed, kExperts);
      for (const TensorBytes& tensor : options_.layers[layer].tensors) {
        GgmlTensor* weights = graph.weights(tensor.name, mapping_->address() + tensor.extent.offset_bytes);
        graph.node(tensor.name + " used", {weights, experts});
      }
    }
    graph.on_compute = [&](const GgmlTensor& node) {
      for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
        wrong += holds(options_.resident[layer]) ? 0 : 1;
        for (const TensorBytes& tensor : options_.layers[layer].tensors) {
          if (tensor.name + " used" == node.name.data()) {
            wrong += count_wrong(tensor, chosen[layer]);
          }
        }
      }
    };
    model.begin();
    graph.compute(model.hook());
    model.end(true);
    return wrong;
  }
  void make_dense() {
    options_.experts = 0;
    options_.slots = 2;
    options_.stop_node = "inp";
  }
  /// One forward through dense layers; how many tensors did not hold what the file does.
  int dense_forward(StreamedModel& model) {
    testing::FakeGraph graph;
    int wrong = 0;
    for (const LayerBytes& layer : options_.layers) {
      graph.node("inp-" + std::to_string(layer.number));
      for (const TensorBytes& tensor : layer.tensors) {
        graph.node(tensor.name + " used",
                   {graph.weights(tensor.name, mapping_->address() + tensor.extent.offset_bytes)});
      }
    }
    graph.on_compute = [&](const GgmlTensor& node) {
      for (const LayerBytes& layer : options_.layers) {
        for (const TensorBytes& tensor : layer.tensors) {
          wrong += tensor.name + " used" == node.name.data() && !holds(tensor.extent) ? 1 : 0;
        }
      }
    };
    model.begin();
    graph.compute(model.hook());
    model.end(true);
    return wrong;
  }
  [[nodiscard]] int count_wrong(const TensorBytes& tensor, const Tokens& tokens) const {
    int wrong = 0;
    for (const std::vector<std::int32_t>& token : tokens) {
      for (const std::int32_t expert : token) {
        wrong += holds(expert_bytes(tensor, expert)) ? 0 : 1;
      }
    }
    return wrong;
  }
  [[nodiscard]] static std::vector<Tokens> choose(std::mt19937& random, std::size_t tokens) {
    std::vector<Tokens> chosen(kLayers, Tokens(tokens));
    for (Tokens& layer : chosen) {
      for (std::vector<std::int32_t>& token : layer) {
        const auto first = static_cast<std::int32_t>(random() % kExperts);
        token = {first, static_cast<std::int32_t>((static_cast<std::uint32_t>(first) + 1) % kExperts)};
      }
    }
    return chosen;
  }
  [[nodiscard]] static std::vector<Tokens> same(std::int32_t first, std::int32_t second) {
    return std::vector<Tokens>(kLayers, Tokens{{first, second}});
  }

  const std::uint64_t page_ = testing::system_page_bytes();
  const std::uint64_t stride_ = 3 * page_ + 1234;
  std::vector<unsigned char> bytes_;
  std::unique_ptr<testing::TemporaryFile> file_;
  std::unique_ptr<testing::FileMapping> mapping_;
  StreamedModelOptions options_;
};

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
  EXPECT_EQ(model.layer_requests().size(), kLayers);
}

TEST_F(StreamedModelTest, LoadingFillsTheSlotsWithExpertsOfEveryLayer) {
  options_.slots = 2 * kLayers;
  StreamedModel model(options_);
  EXPECT_EQ(forward(model, same(0, 1)), 0);
  const StreamedModelStatistics statistics = model.statistics();
  EXPECT_EQ(statistics.gate.hits, kLayers * kUsed);
  EXPECT_EQ(statistics.gate.read_bytes, 0U);
  EXPECT_GE(statistics.loaded_bytes, kLayers * kUsed * 2 * (stride_ - 2 * page_));
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

TEST_F(StreamedModelTest, ABudgetThatIsTooSmallIsRefusedAndNothingStays) {
  options_.limit_bytes = 2 * kMiB;
  EXPECT_THROW(StreamedModel{options_}, BudgetError);
  EXPECT_TRUE(holds({0, 0, bytes_.size()}));  // the mapping shows the file
}

TEST_F(StreamedModelTest, ADiskThatFailsWhileLoadingIsRefusedAndNothingStays) {
  Disk::failing_reads = 1;
  EXPECT_THROW(StreamedModel{options_}, ReadError);
  EXPECT_TRUE(holds({0, 0, bytes_.size()}));
}

TEST_F(StreamedModelTest, TensorsThatAreNotEqualPartsAreRefused) {
  options_.layers[0].tensors[0].extent.size_bytes -= 1;
  EXPECT_THROW(StreamedModel{options_}, ConfigError);
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
