#include "tierpool/engine/llama_hook.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/fake_graph.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using Names = std::vector<std::string>;

/// Writes down what it is asked.
class RecordingGate final : public LayerGate {
 public:
  void enter(std::uint32_t layer, std::span<const std::int32_t> experts) override {
    calls.push_back("enter " + std::to_string(layer));
    requests.emplace_back(experts.begin(), experts.end());
    if (on_enter) {
      on_enter(layer);
    }
  }
  void leave() noexcept override { calls.emplace_back("leave"); }
  void cancel() noexcept override { calls.emplace_back("cancel"); }
  [[nodiscard]] GateStatistics statistics() const override { return {}; }
  [[nodiscard]] std::vector<LayerRequests> layer_requests() const override { return {}; }

  Names calls;
  std::vector<std::vector<std::int32_t>> requests;
  std::function<void(std::uint32_t)> on_enter;
};

constexpr std::uint64_t kAddress = 0x10000;

/// Layers 1 and 3 of a model come and go; layer 2 stays.
class LlamaHookTest : public ::testing::Test {
 protected:
  static std::vector<StreamedLayer> layers() {
    return {{1, {{"blk.1.up", kAddress}}}, {3, {{"blk.3.up", kAddress + 4096}}}};
  }
  void build(testing::FakeGraph& graph, std::uint64_t address = kAddress) {
    using Tokens = std::vector<std::vector<std::int32_t>>;
    GgmlTensor* first = graph.weights("blk.1.up", address);
    GgmlTensor* second = graph.weights("blk.3.up", kAddress + 4096);
    graph.node("embd");
    GgmlTensor* chosen = graph.experts("topk-1", Tokens{{5, 2}, {2, 0}}, 2, 8);
    graph.node("topk-1 (view)", {chosen});
    graph.node("up-1", {first, chosen});
    graph.experts("topk-2", Tokens{{7, 7}}, 2, 8);
    GgmlTensor* none = graph.experts("topk-3", Tokens{}, 2, 8);
    graph.node("up-3", {second, none});
    graph.node("result");
  }
  static void expect_refused(LlamaHook& hook, const std::string& part) {
    try {
      hook.end(true);
      FAIL() << part;
    } catch (const CancelledError& error) {
      FAIL() << error.what();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }

  RecordingGate gate_;
  LlamaHook hook_{"topk", StopKind::experts, layers(), gate_};
};

TEST_F(LlamaHookTest, StopsOnlyWhereLayersNeedTheirWeights) {
  testing::FakeGraph graph;
  build(graph);
  for (int round = 0; round < 3; ++round) {
    hook_.begin();
    EXPECT_EQ(graph.compute(hook_),
              (Names{"embd", "topk-1", "|", "topk-1 (view)", "up-1", "topk-2", "topk-3", "|", "up-3", "result"}));
    EXPECT_NO_THROW(hook_.end(true));
    EXPECT_EQ(gate_.calls, (Names{"enter 0", "enter 1", "leave"}));
    gate_.calls.clear();
  }
}

TEST_F(LlamaHookTest, ReadsOnlyTheColumnsOfTheView) {
  testing::FakeGraph graph;
  build(graph);
  hook_.begin();
  graph.compute(hook_);
  hook_.end(true);
  EXPECT_EQ(gate_.requests, (std::vector<std::vector<std::int32_t>>{{5, 2, 2, 0}, {}}));
}

TEST_F(LlamaHookTest, DenseLayersHaveNoExperts) {
  LlamaHook hook("ffn_inp", StopKind::layer, {{0, {}}}, gate_);
  testing::FakeGraph graph;
  graph.node("ffn_inp-0");
  hook.begin();
  graph.compute(hook);
  EXPECT_NO_THROW(hook.end(true));
  EXPECT_EQ(gate_.requests, (std::vector<std::vector<std::int32_t>>{{}}));
}

TEST_F(LlamaHookTest, AFailedReadStopsTheGraphAndIsThrownAtItsEnd) {
  testing::FakeGraph graph;
  build(graph);
  gate_.on_enter = [](std::uint32_t layer) {
    if (layer == 0) {
      throw ReadError("disk");
    }
  };
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_), (Names{"embd", "topk-1", "|"}));
  EXPECT_THROW(hook_.end(true), ReadError);
  EXPECT_EQ(gate_.calls.back(), "leave");
  gate_.on_enter = nullptr;
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_).back(), "result");
  EXPECT_NO_THROW(hook_.end(true));
}

TEST_F(LlamaHookTest, WhatIsNoExceptionOfOursIsKeptToo) {
  testing::FakeGraph graph;
  build(graph);
  gate_.on_enter = [](std::uint32_t) { throw std::out_of_range("expert 99"); };
  hook_.begin();
  graph.compute(hook_);
  EXPECT_THROW(hook_.end(false), std::out_of_range);
}

TEST_F(LlamaHookTest, CancelEndsTheGraphWhereItIs) {
  testing::FakeGraph graph;
  build(graph);
  graph.on_compute = [this](const GgmlTensor& node) {
    if (std::string(node.name.data()) == "up-1") {
      hook_.cancel();
    }
  };
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_).back(), "up-1");
  EXPECT_THROW(hook_.end(true), CancelledError);
  graph.on_compute = nullptr;
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_).back(), "result");
  EXPECT_NO_THROW(hook_.end(true));
}

TEST_F(LlamaHookTest, CancelAtAStopEntersNoLayer) {
  testing::FakeGraph graph;
  build(graph);
  graph.on_compute = [this](const GgmlTensor& node) {
    if (std::string(node.name.data()) == "topk-1") {
      hook_.cancel();
    }
  };
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_).back(), "|");
  EXPECT_EQ(gate_.calls, Names{"cancel"});
  EXPECT_THROW(hook_.end(true), CancelledError);
}

TEST_F(LlamaHookTest, WeightsElsewhereAreRefusedBeforeTheyAreUsed) {
  testing::FakeGraph graph;
  build(graph, kAddress + 1);
  hook_.begin();
  EXPECT_EQ(graph.compute(hook_).back(), "|");
  expect_refused(hook_, "blk.1.up");
}

TEST_F(LlamaHookTest, AViewOfWeightsCountsAsTheWeights) {
  testing::FakeGraph graph;
  GgmlTensor* view = graph.weights("blk.1.up (view)", kAddress + 16);
  view->view_src = graph.weights("blk.1.up", kAddress + 1);
  graph.experts("topk-1", {{0, 1}}, 2, 8);
  graph.node("up-1", {view});
  hook_.begin();
  graph.compute(hook_);
  expect_refused(hook_, "blk.1.up at");
}

TEST_F(LlamaHookTest, WeightsUsedBeforeTheirStopAreRefused) {
  testing::FakeGraph graph;
  GgmlTensor* weights = graph.weights("blk.3.up", kAddress + 4096);
  graph.experts("topk-1", {{0, 1}}, 2, 8);
  graph.node("up-3", {weights});
  hook_.begin();
  graph.compute(hook_);
  expect_refused(hook_, "not between topk-3");
}

TEST_F(LlamaHookTest, StopsThatAreMissingRepeatedOrOutOfOrderAreRefused) {
  testing::FakeGraph missing;
  missing.experts("topk-1", {{0, 1}}, 2, 8);
  hook_.begin();
  missing.compute(hook_);
  expect_refused(hook_, "1 of 2 nodes called topk-N");

  testing::FakeGraph repeated;
  repeated.experts("topk-1", {{0, 1}}, 2, 8);
  repeated.experts("topk-1", {{0, 1}}, 2, 8);
  hook_.begin();
  repeated.compute(hook_);
  expect_refused(hook_, "topk-1 after 1 stops");

  testing::FakeGraph backwards;
  backwards.experts("topk-3", {{0, 1}}, 2, 8);
  hook_.begin();
  backwards.compute(hook_);
  expect_refused(hook_, "topk-3 after 0 stops");
}

TEST_F(LlamaHookTest, WeightsThatNothingUsesAreRefused) {
  testing::FakeGraph graph;
  graph.experts("topk-1", {{0, 1}}, 2, 8);
  graph.experts("topk-3", {{0, 1}}, 2, 8);
  hook_.begin();
  graph.compute(hook_);
  expect_refused(hook_, "uses no weights called blk.");
}

TEST_F(LlamaHookTest, ValuesThatAreNoExpertsAreRefused) {
  testing::FakeGraph graph;
  graph.node("topk-1");
  hook_.begin();
  graph.compute(hook_);
  expect_refused(hook_, "not numbers of experts");
}

TEST_F(LlamaHookTest, AGraphThatTheLibraryBrokeOffIsNotJudged) {
  hook_.begin();
  EXPECT_NO_THROW(hook_.end(false));
}

TEST_F(LlamaHookTest, NumbersOfNoLayerAreRefused) {
  for (const std::uint32_t number : {65'536U, 0xFFFF'FFFFU}) {
    EXPECT_THROW(LlamaHook("topk", StopKind::experts, {{number, {}}}, gate_), ConfigError) << number;
  }
  EXPECT_NO_THROW(LlamaHook("topk", StopKind::experts, {{65'535, {}}}, gate_));
}

TEST_F(LlamaHookTest, LayersOutOfOrderAreRefused) {
  EXPECT_THROW(LlamaHook("topk", StopKind::experts, {{3, {}}, {1, {}}}, gate_), ConfigError);
}

}  // namespace
}  // namespace tierpool
