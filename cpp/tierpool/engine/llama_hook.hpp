#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tierpool/engine/abort_flag.hpp"
#include "tierpool/engine/ggml_abi.hpp"
#include "tierpool/engine/layer_gate.hpp"

namespace tierpool {

/// What a stop node of a graph says.
enum class StopKind {
  layer,   ///< the layer's weights are needed next
  experts  ///< and its values are which experts each token needs: 32-bit integers, a column for each token
};

/// A tensor of weights that comes and goes, and where the engine must be looking for it.
struct StreamedTensor {
  std::string name;
  std::uint64_t address = 0;
};

/// A layer of a model, by its number in the names of nodes, and what of it comes and goes.
struct StreamedLayer {
  std::uint32_t number = 0;
  std::vector<StreamedTensor> tensors;
};

/// Follows a graph of llama.cpp as it is computed, stops it where a layer's weights are needed and lets it go on when
/// they are there.
///
/// Between begin() and end() one thread computes one graph. Nothing is thrown through the library: what goes wrong is
/// kept for end(), and everything computed from then on is worthless. In the first graph every use of a streamed tensor
/// is checked: it must lie where slots are shown, and be used only between its layer's stop and the next.
class LlamaHook {
 public:
  /// `stop_node` is followed by '-' and the layer's number in the names of nodes. `layers` by order of use; ConfigError
  /// when they are not, or a number is above 65,535. The gate, which knows the layers by their place in `layers`,
  /// outlives the hook.
  LlamaHook(std::string_view stop_node, StopKind kind, std::vector<StreamedLayer> layers, LayerGate& gate);
  ~LlamaHook() = default;
  LlamaHook(const LlamaHook&) = delete;
  LlamaHook& operator=(const LlamaHook&) = delete;

  /// ggml's callback for the evaluation of a graph; `hook` is a LlamaHook. With `ask`, whether the graph must stop
  /// after the node; without, whether it may go on.
  static bool evaluate(GgmlTensor* node, bool ask, void* hook) noexcept;
  /// What ggml's abort callback asks, AbortFlag::should_abort().
  [[nodiscard]] AbortFlag& abort_flag() noexcept { return abort_flag_; }

  /// Before a graph is computed.
  void begin() noexcept;
  /// After it, whatever became of it; `is_computed` is what the library says. Throws what went wrong on the way;
  /// CancelledError after cancel(); Error when not every layer was stopped at, or a tensor was not where it must be.
  void end(bool is_computed);
  /// Ends the graph under way; from any thread.
  void cancel() noexcept;

 private:
  struct TensorUse {
    std::size_t layer = 0;  // place in layers_
    std::uint64_t address = 0;
    bool is_seen = false;
  };
  [[nodiscard]] bool is_stop(const GgmlTensor& node);
  void check_sources(const GgmlTensor& node);
  void check_use(const GgmlTensor& weights, const GgmlTensor& node);
  void enter(const GgmlTensor& node);
  void read_experts(const GgmlTensor& node);
  [[nodiscard]] std::optional<std::size_t> find_layer(const GgmlTensor& node) const noexcept;
  void require_complete() const;
  void fail() noexcept;

  const std::string prefix_;
  const StopKind kind_;
  const std::vector<StreamedLayer> layers_;
  LayerGate& gate_;
  std::vector<std::uint32_t> place_by_number_;  // one more than it, 0 for none
  std::unordered_map<std::string_view, TensorUse> uses_;
  AbortFlag abort_flag_;
  // Of the thread that computes.
  bool is_checked_ = false;
  std::size_t stops_ = 0;  // in this graph
  std::vector<std::int32_t> experts_;
  std::exception_ptr error_;
};

}  // namespace tierpool
