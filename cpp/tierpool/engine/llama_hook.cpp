#include "tierpool/engine/llama_hook.hpp"

#include <charconv>
#include <cstring>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr const char* kRemedy = "; this model cannot be streamed with this version of llama.cpp: run it in memory";

// Beyond any model; a table of places has an entry for each number.
constexpr std::uint32_t kMostLayerNumber = 65'535;

std::string_view name_of(const GgmlTensor& tensor) noexcept {
  return {tensor.name.data(), strnlen(tensor.name.data(), tensor.name.size())};
}

}  // namespace

LlamaHook::LlamaHook(std::string_view stop_node, StopKind kind, std::vector<StreamedLayer> layers, LayerGate& gate)
    : prefix_(std::string(stop_node) + "-"), kind_(kind), layers_(std::move(layers)), gate_(gate) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::uint32_t number = layers_[i].number;
    if (number > kMostLayerNumber) {
      throw ConfigError("Layer " + std::to_string(number) + " is above the most, " + std::to_string(kMostLayerNumber) +
                        ": layers are numbered from 0 in the order of the model");
    }
    if (i > 0 && number <= layers_[i - 1].number) {
      throw ConfigError("Layer " + std::to_string(number) + " comes after layer " +
                        std::to_string(layers_[i - 1].number) + ": layers must be given in order");
    }
    place_by_number_.resize(number + 1);
    place_by_number_[number] = static_cast<std::uint32_t>(i) + 1;
    for (const StreamedTensor& tensor : layers_[i].tensors) {
      uses_[tensor.name] = {i, tensor.address, false};
    }
  }
}

bool LlamaHook::evaluate(GgmlTensor* node, bool ask, void* hook) noexcept {
  auto& self = *static_cast<LlamaHook*>(hook);
  try {
    if (ask) {
      if (self.error_ != nullptr) {
        return false;
      }
      if (!self.is_checked_) {
        self.check_sources(*node);
      }
      return self.is_stop(*node);
    }
    if (self.abort_flag_.is_set()) {
      return false;
    }
    self.enter(*node);
    return true;
  } catch (...) {
    self.fail();
    // Asked, the answer is to stop here, so that nothing is computed from what is not there.
    return ask;
  }
}

void LlamaHook::begin() noexcept {
  abort_flag_.clear();
  error_ = nullptr;
  stops_ = 0;
}

void LlamaHook::end(bool is_computed) {
  gate_.leave();
  if (error_ != nullptr) {
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
  if (abort_flag_.is_set()) {
    throw CancelledError("The computation was cancelled");
  }
  if (is_computed) {
    require_complete();
    is_checked_ = true;
  }
}

void LlamaHook::cancel() noexcept {
  abort_flag_.set();
  gate_.cancel();
}

void LlamaHook::fail() noexcept {
  error_ = std::current_exception();
  abort_flag_.set();
}

/// Whether the node is a stop; stops have to come in the order of layers, each once.
bool LlamaHook::is_stop(const GgmlTensor& node) {
  const std::optional<std::size_t> place = find_layer(node);
  if (!place) {
    return false;
  }
  if (*place != stops_) {
    throw Error("The graph came to " + std::string(name_of(node)) + " after " + std::to_string(stops_) +
                " stops, but it is stop " + std::to_string(*place + 1) + kRemedy);
  }
  ++stops_;
  return true;
}

std::optional<std::size_t> LlamaHook::find_layer(const GgmlTensor& node) const noexcept {
  const char* name = node.name.data();
  if (std::strncmp(name, prefix_.c_str(), prefix_.size()) != 0) {
    return std::nullopt;
  }
  const std::string_view text = name_of(node).substr(prefix_.size());
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // A view of a stop node bears its name and more.
  if (error != std::errc() || end != text.data() + text.size() || number >= place_by_number_.size() ||
      place_by_number_[number] == 0) {
    return std::nullopt;
  }
  return place_by_number_[number] - 1;
}

void LlamaHook::check_sources(const GgmlTensor& node) {
  for (const GgmlTensor* source : node.src) {
    if (source != nullptr) {
      check_use(source->view_src != nullptr ? *source->view_src : *source, node);
    }
  }
}

void LlamaHook::check_use(const GgmlTensor& weights, const GgmlTensor& node) {
  const auto found = uses_.find(name_of(weights));
  if (found == uses_.end()) {
    return;
  }
  const std::string what(found->first);
  TensorUse& use = found->second;
  if (address_of(weights.data) != use.address) {
    throw Error("The engine looks for " + what + " at " + std::to_string(address_of(weights.data)) +
                ", but it is shown at " + std::to_string(use.address) + kRemedy);
  }
  if (use.layer + 1 != stops_) {
    throw Error("The graph uses " + what + " in " + std::string(name_of(node)) + ", not between " + prefix_ +
                std::to_string(layers_[use.layer].number) + " and the next stop" + kRemedy);
  }
  use.is_seen = true;
}

void LlamaHook::enter(const GgmlTensor& node) {
  experts_.clear();
  if (kind_ == StopKind::experts) {
    read_experts(node);
  }
  gate_.enter(static_cast<std::uint32_t>(stops_ - 1), experts_);
}

/// A view of a larger table: tokens do not follow each other without a gap, and there may be none at all.
void LlamaHook::read_experts(const GgmlTensor& node) {
  if (node.type != kGgmlI32 || node.ne[2] != 1 || node.ne[3] != 1) {
    throw Error("The values of " + std::string(name_of(node)) + " are not numbers of experts" + kRemedy);
  }
  const auto* data = static_cast<const char*>(node.data);
  for (std::int64_t token = 0; token < node.ne[1]; ++token) {
    for (std::int64_t i = 0; i < node.ne[0]; ++i) {
      std::int32_t expert = 0;
      std::memcpy(&expert,
                  data + static_cast<std::size_t>(token) * node.nb[1] + static_cast<std::size_t>(i) * node.nb[0],
                  sizeof(expert));
      experts_.push_back(expert);
    }
  }
}

void LlamaHook::require_complete() const {
  if (stops_ != layers_.size()) {
    throw Error("The graph stopped at " + std::to_string(stops_) + " of " + std::to_string(layers_.size()) +
                " nodes called " + prefix_ + "N" + kRemedy);
  }
  for (const auto& [name, use] : uses_) {
    if (!use.is_seen) {
      throw Error("The graph uses no weights called " + std::string(name) + kRemedy);
    }
  }
}

}  // namespace tierpool
