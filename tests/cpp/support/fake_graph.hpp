#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/engine/abort_flag.hpp"
#include "tierpool/engine/ggml_abi.hpp"
#include "tierpool/engine/llama_hook.hpp"

namespace tierpool::testing {

/// A graph of named nodes, computed as ggml's scheduler does it: the nodes up to a stop at once, then the callback.
class FakeGraph {
 public:
  /// Weights lie at an address; they are no nodes.
  GgmlTensor* weights(const std::string& name, std::uint64_t address) {
    GgmlTensor* tensor = make(name);
    tensor->data = pointer_at(address);
    return tensor;
  }
  GgmlTensor* node(const std::string& name, std::vector<GgmlTensor*> sources = {}) {
    GgmlTensor* tensor = make(name);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      tensor->src[i] = sources[i];
    }
    nodes_.push_back(tensor);
    return tensor;
  }
  /// A view of the first columns of a table with `stride` numbers in a row, as the router's choice is.
  GgmlTensor* experts(const std::string& name, const std::vector<std::vector<std::int32_t>>& tokens, std::size_t used,
                      std::size_t stride) {
    GgmlTensor* tensor = node(name);
    std::vector<std::int32_t>& table = tables_.emplace_back(tokens.size() * stride + 1, -1);
    for (std::size_t token = 0; token < tokens.size(); ++token) {
      for (std::size_t i = 0; i < tokens[token].size(); ++i) {
        table[token * stride + i] = tokens[token][i];
      }
    }
    tensor->type = kGgmlI32;
    tensor->ne = {static_cast<std::int64_t>(used), static_cast<std::int64_t>(tokens.size()), 1, 1};
    tensor->nb = {4, 4 * stride, 4 * stride, 4 * stride};
    tensor->data = table.data();
    return tensor;
  }

  /// The names of the nodes that were computed, with "|" where the callback was told of a stop.
  std::vector<std::string> compute(LlamaHook& hook) {
    std::vector<std::string> computed;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      std::vector<GgmlTensor*> segment;
      bool need = false;
      for (; i < nodes_.size() && !need; ++i) {
        segment.push_back(nodes_[i]);
        need = LlamaHook::evaluate(nodes_[i], true, &hook);
      }
      --i;
      for (const GgmlTensor* tensor : segment) {
        if (AbortFlag::should_abort(&hook.abort_flag())) {
          return computed;
        }
        computed.emplace_back(tensor->name.data());
        if (on_compute) {
          on_compute(*tensor);
        }
      }
      if (need) {
        computed.emplace_back("|");
        if (!LlamaHook::evaluate(segment.back(), false, &hook)) {
          return computed;
        }
      }
    }
    return computed;
  }

  std::function<void(const GgmlTensor&)> on_compute;

 private:
  GgmlTensor* make(const std::string& name) {
    GgmlTensor& tensor = tensors_.emplace_back();
    tensor.ne = {1, 1, 1, 1};
    std::snprintf(tensor.name.data(), tensor.name.size(), "%s", name.c_str());
    return &tensor;
  }

  std::deque<GgmlTensor> tensors_;  // never move
  std::deque<std::vector<std::int32_t>> tables_;
  std::vector<GgmlTensor*> nodes_;
};

}  // namespace tierpool::testing
