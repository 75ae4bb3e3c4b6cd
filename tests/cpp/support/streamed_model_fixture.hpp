#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/fake_graph.hpp"
#include "support/file_mapping.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/engine/streamed_model.hpp"

namespace tierpool::testing {

/// What the disk does to reads of weights while a model is used.
struct Disk {
  static inline std::atomic<int> failing_reads{0};
  static inline std::atomic<std::int64_t> broken_first{-1};  // reads that begin in this stretch fail
  static inline std::atomic<std::int64_t> broken_bytes{0};
  static inline std::atomic<int> broken_reads{0};
  static inline std::atomic<bool> is_short{false};
  static inline std::function<void()> on_read;
  static inline std::atomic<std::int64_t> swapped_first{-1};  // reads inside one extent come from the other
  static inline std::atomic<std::int64_t> swapped_second{-1};
  static inline std::atomic<std::int64_t> swapped_bytes{0};

  static void heal() {
    failing_reads = 0;
    broken_first = -1;
    is_short = false;
    on_read = nullptr;
    swapped_first = -1;
    swapped_bytes = 0;
  }
  static ssize_t read(int descriptor, void* destination, std::size_t bytes, off_t offset) {
    if (on_read) {
      on_read();
    }
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

/// A model of four layers with six experts each, in a file that is mapped, on a disk that a test may disturb.
class StreamedModelTest : public ::testing::Test {
 protected:
  using Disk = testing::Disk;
  static constexpr std::uint32_t kLayers = 4;
  static constexpr std::uint32_t kExperts = 6;
  static constexpr std::size_t kUsed = 2;

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
    bytes_ = random_bytes(offset, 33);
    file_ = std::make_unique<TemporaryFile>(bytes_);
    mapping_ = std::make_unique<FileMapping>(file_->path(), 0, align_up(offset, page_));
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
    FakeGraph graph;
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
    FakeGraph graph;
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

  const std::uint64_t page_ = system_page_bytes();
  const std::uint64_t stride_ = 3 * page_ + 1234;
  std::vector<unsigned char> bytes_;
  std::unique_ptr<TemporaryFile> file_;
  std::unique_ptr<FileMapping> mapping_;
  StreamedModelOptions options_;
};

}  // namespace tierpool::testing
