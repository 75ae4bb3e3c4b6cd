#include "tierpool/engine/streamed_model.hpp"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "tierpool/base/clock.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/engine/expert_gate.hpp"
#include "tierpool/engine/ring_gate.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool {
namespace {

std::vector<std::shared_ptr<FileSource>> open_files(const StreamedModelOptions& options) {
  std::vector<std::shared_ptr<FileSource>> sources;
  for (const MappedFile& file : options.files) {
    sources.push_back(options.pread_call == nullptr ? std::make_shared<FileSource>(file.path)
                                                    : std::make_shared<FileSource>(file.path, options.pread_call));
  }
  return sources;
}

std::vector<WindowFile> window_files(const StreamedModelOptions& options,
                                     const std::vector<std::shared_ptr<FileSource>>& sources) {
  std::vector<WindowFile> files;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const MappedFile& file = options.files[i];
    files.push_back({file.address, file.offset_bytes, file.size_bytes, sources[i]->file_descriptor()});
  }
  return files;
}

std::vector<StreamedLayer> shown_layers(const StreamedModelOptions& options, const WeightWindow& window) {
  std::vector<StreamedLayer> layers;
  for (const LayerBytes& layer : options.layers) {
    StreamedLayer shown{layer.number, {}};
    for (const TensorBytes& tensor : layer.tensors) {
      shown.tensors.push_back({tensor.name, window.address(tensor.extent)});
    }
    layers.push_back(std::move(shown));
  }
  return layers;
}

/// An expert of each layer, then another one of each.
std::vector<UnitId> units_across_layers(std::uint32_t layers, std::uint32_t experts) {
  std::vector<UnitId> ids;
  for (std::uint32_t expert = 0; expert < experts; ++expert) {
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      ids.push_back(layer * experts + expert);
    }
  }
  return ids;
}

std::vector<UnitId> all_units(const UnitTable& units) {
  std::vector<UnitId> ids(units.unit_count());
  for (UnitId unit = 0; unit < units.unit_count(); ++unit) {
    ids[unit] = unit;
  }
  return ids;
}

}  // namespace

/// In the order in which they are made; what stands below goes first.
struct StreamedModel::Parts {
  explicit Parts(const StreamedModelOptions& options)
      : budget("host", options.limit_bytes),
        layout(lay_out_model(options.layers, options.resident, options.experts, page_bytes)),
        units(layout.units, page_bytes),
        files(open_files(options)),
        reader({files.begin(), files.end()}, options.reader, clock) {
    for (const auto& [purpose, bytes] : options.reserved_bytes) {
      shares.push_back(budget.take(purpose, bytes));
    }
    WatchedLoading loading(options.watch, reader, loading_bytes(options));
    loading.require_wanted();
    slots.emplace(device, budget, std::max(units.largest_unit_bytes(), page_bytes), options.slots, page_bytes);
    window.emplace(units, *slots, window_files(options, files), layout.copies(), options.uncovered);
    if (window->most_mappings() > options.most_mappings) {
      throw BudgetError("The slots and copies can need " + std::to_string(window->most_mappings()) +
                        " mappings, but only " + std::to_string(options.most_mappings) +
                        " are planned: use fewer slots, or plan again");
    }
    window->load_resident(layout.resident, MemoryPurpose::resident_weights, reader, budget);
    window->load_resident(layout.edges, MemoryPurpose::edge_pages, reader, budget);
    loader.emplace(reader, units, *slots);
    make_gate(options);
    const StopKind kind = options.experts > 0 ? StopKind::experts : StopKind::layer;
    hook.emplace(options.stop_node, kind, shown_layers(options, *window), *gate);
    loading.finish();
  }

  /// Of what stays, and of the units that are there before the first forward.
  [[nodiscard]] std::uint64_t loading_bytes(const StreamedModelOptions& options) const {
    std::uint64_t bytes = 0;
    for (const std::vector<Extent>* extents : {&layout.resident, &layout.edges}) {
      for (const Extent& extent : *extents) {
        bytes += extent.size_bytes;
      }
    }
    const auto layers = static_cast<std::uint32_t>(options.layers.size());
    std::vector<UnitId> loaded = units_across_layers(layers, std::max(options.experts, 1U));
    if (options.slots < loaded.size()) {
      loaded.resize(options.experts > 0 ? options.slots : 0);
    }
    for (const UnitId unit : loaded) {
      bytes += units.unit_bytes(unit);
    }
    return bytes;
  }

  [[nodiscard]] std::vector<LayerRequests> layer_requests() const {
    std::vector<LayerRequests> layers = gate->layer_requests();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i].read_bytes -= loading_requests[i].read_bytes;
      layers[i].stall_ns -= loading_requests[i].stall_ns;
    }
    return layers;
  }

  void make_gate(const StreamedModelOptions& options) {
    const auto layers = static_cast<std::uint32_t>(options.layers.size());
    if (options.experts > 0) {
      cache.emplace(*loader, *slots, *window, std::make_unique<LrfuPolicy>(units.unit_count()), clock);
      // While the disk has nothing else to do: which experts are popular is not known yet, but every one may be needed.
      cache->preload(units_across_layers(layers, options.experts));
      note_loaded();
      gate = std::make_unique<ExpertGate>(*cache, layers, options.experts);
    } else {
      ring.emplace(*loader, *slots, *window, all_units(units), options.slots, clock);
      // Either nothing is pinned, and what start() begins is still being read when it returns and counts with the layer
      // that waits for it; or everything is, and has been read by then.
      const bool all_fit = ring->streamed_count() == 0;
      if (!all_fit) {
        note_loaded();
      }
      ring->start();
      if (all_fit) {
        note_loaded();
      }
      gate = std::make_unique<RingGate>(*ring, layers);
    }
    loading_gate = gate->statistics();
    loading_requests = gate->layer_requests();
  }

  /// What was read up to now was read while loading.
  void note_loaded() {
    const ReaderStatistics read = reader.statistics();
    loaded_bytes = read.read_bytes;
    loading_busy_ns = read.busy_ns;
  }

  void require_unchanged() const {
    for (const std::shared_ptr<FileSource>& file : files) {
      const ReadFault fault = file->read(0, 0, 0).fault;  // reads nothing, but looks at the file
      if (fault != ReadFault::none) {
        throw ReadError("'" + file->name() + "' was " + (fault == ReadFault::gone ? "removed" : "changed") +
                        " since the model was loaded: load it again");
      }
    }
  }

  const std::uint64_t page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  SteadyClock clock;
  MemoryBudget budget;
  std::vector<MemoryBudget::Share> shares;
  const UnitLayout layout;
  const UnitTable units;
  std::vector<std::shared_ptr<FileSource>> files;
  HostDevice device{HostBacking::shared_memory};
  std::optional<SlotPool> slots;
  DirectReader reader;  // its threads end before the memory that they write to goes
  std::optional<WeightWindow> window;
  std::optional<UnitLoader> loader;
  std::optional<ExpertCache> cache;
  std::optional<LayerRing> ring;
  std::unique_ptr<LayerGate> gate;
  std::optional<LlamaHook> hook;
  std::uint64_t loaded_bytes = 0;
  std::uint64_t loading_busy_ns = 0;
  GateStatistics loading_gate;  // what it had counted by then
  std::vector<LayerRequests> loading_requests;
};

StreamedModel::StreamedModel(const StreamedModelOptions& options) : parts_(std::make_unique<Parts>(options)) {}

StreamedModel::~StreamedModel() { close(); }

LlamaHook& StreamedModel::hook() {
  if (parts_ == nullptr) {
    throw Error("The streamed model is closed");
  }
  return *parts_->hook;
}

void StreamedModel::begin() {
  hook().begin();
  parts_->reader.require_own_process();
  try {
    parts_->require_unchanged();
  } catch (const ReadError&) {
    parts_->gate->cancel();  // what is being read ahead meets the same, and must not be told of it again
    throw;
  }
}

void StreamedModel::end(bool is_computed) { hook().end(is_computed); }

void StreamedModel::cancel() noexcept {
  const std::shared_lock<std::shared_mutex> lock(closing_);
  if (parts_ != nullptr) {
    parts_->hook->cancel();
  }
}

StreamedModelStatistics StreamedModel::statistics() const {
  const std::shared_lock<std::shared_mutex> lock(closing_);
  return parts_ == nullptr ? last_statistics_ : count();
}

std::vector<LayerRequests> StreamedModel::layer_requests() const {
  const std::shared_lock<std::shared_mutex> lock(closing_);
  return parts_ == nullptr ? last_requests_ : parts_->layer_requests();
}

void StreamedModel::close() noexcept {
  if (parts_ != nullptr && parts_->reader.is_foreign_process()) {
    parts_.reset();  // without the lock, which a thread of the parent may have held
    return;
  }
  const std::unique_lock<std::shared_mutex> lock(closing_);
  if (parts_ == nullptr) {
    return;
  }
  last_statistics_ = count();
  last_statistics_.used_bytes = 0;
  last_requests_ = parts_->layer_requests();
  parts_.reset();
}

StreamedModelStatistics StreamedModel::count() const {
  StreamedModelStatistics statistics;
  statistics.gate = parts_->gate->statistics();
  statistics.gate.read_bytes -= parts_->loading_gate.read_bytes;
  statistics.gate.stall_ns -= parts_->loading_gate.stall_ns;
  statistics.loaded_bytes = parts_->loaded_bytes;
  statistics.read_busy_ns = parts_->reader.statistics().busy_ns - parts_->loading_busy_ns;
  for (const std::shared_ptr<FileSource>& file : parts_->files) {
    statistics.buffered_files += file->is_direct() ? 0 : 1;
  }
  statistics.used_bytes = parts_->budget.used_bytes();
  statistics.peak_bytes = parts_->budget.peak_bytes();
  statistics.limit_bytes = parts_->budget.limit_bytes();
  return statistics;
}

}  // namespace tierpool
