#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "gil.hpp"
#include "python_log_sink.hpp"
#include "statistics_fields.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/choice.hpp"
#include "tierpool/engine/abort_flag.hpp"
#include "tierpool/engine/ggml_abi.hpp"
#include "tierpool/engine/loading_watch.hpp"
#include "tierpool/engine/model_layout.hpp"
#include "tierpool/engine/streamed_model.hpp"

namespace tierpool::bindings {
namespace {

using Statistics = StreamedModelStatistics;

constexpr Field<Statistics> kFields[] = {
    TIERPOOL_FIELD(Statistics, "hits", s.gate.hits, "Requests for units that were in memory."),
    TIERPOOL_FIELD(Statistics, "misses", s.gate.misses, "Requests for units that were not."),
    TIERPOOL_FIELD(Statistics, "requested_bytes", s.gate.requested_bytes, "Of the units asked for."),
    TIERPOOL_FIELD(Statistics, "reused_bytes", s.gate.reused_bytes, "Of these, in memory and not read for it."),
    TIERPOOL_FIELD(Statistics, "read_bytes", s.gate.read_bytes, "Of units that came from the files."),
    TIERPOOL_FIELD(Statistics, "loaded_bytes", s.loaded_bytes, "Read while loading."),
    TIERPOOL_FIELD(Statistics, "stall_ns", s.gate.stall_ns, "Time that computing waited for reads."),
    TIERPOOL_FIELD(Statistics, "read_busy_ns", s.read_busy_ns, "Time in which at least one read was under way."),
    TIERPOOL_FIELD(Statistics, "buffered_files", s.buffered_files, "Files that cannot be read past the page cache."),
    TIERPOOL_FIELD(Statistics, "used_bytes", s.used_bytes, "Of the memory, now."),
    TIERPOOL_FIELD(Statistics, "peak_bytes", s.peak_bytes, "The most that was."),
    TIERPOOL_FIELD(Statistics, "limit_bytes", s.limit_bytes, "The most that may be."),
};

// What Python describes a model by: tuples in the order of the structures' members.
using File = std::tuple<std::string, std::uint64_t, std::uint64_t, std::uint64_t>;
using Stretch = std::tuple<std::uint32_t, std::uint64_t, std::uint64_t>;
using Tensor = std::pair<std::string, Stretch>;
using LayerNumbers = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>;
using Layer = std::pair<std::uint32_t, std::vector<Tensor>>;

Extent to_extent(const Stretch& stretch) {
  const auto& [file_index, offset_bytes, size_bytes] = stretch;
  return {file_index, offset_bytes, size_bytes};
}

std::vector<Extent> to_extents(const std::vector<Stretch>& stretches) {
  std::vector<Extent> extents;
  extents.reserve(stretches.size());
  for (const Stretch& stretch : stretches) {
    extents.push_back(to_extent(stretch));
  }
  return extents;
}

LayerBytes to_layer(const Layer& layer) {
  LayerBytes bytes{layer.first, {}};
  for (const auto& [name, stretch] : layer.second) {
    bytes.tensors.push_back({name, to_extent(stretch)});
  }
  return bytes;
}

MemoryPurpose parse_purpose(const std::string& name) {
  return static_cast<MemoryPurpose>(index_of_choice("purpose", name, kMemoryPurposeNames));
}

std::vector<LayerBytes> to_layers(const std::vector<Layer>& layers) {
  std::vector<LayerBytes> bytes;
  bytes.reserve(layers.size());
  for (const Layer& layer : layers) {
    bytes.push_back(to_layer(layer));
  }
  return bytes;
}

MappingCount make_mapping_count(const std::vector<std::uint64_t>& file_bytes, const std::vector<Layer>& layers,
                                const std::vector<Stretch>& resident, std::uint32_t experts) {
  return count_mappings(to_layers(layers), to_extents(resident), experts, file_bytes);
}

std::unique_ptr<StreamedModel> make_model(const std::vector<File>& files, const std::vector<Layer>& layers,
                                          const std::vector<Stretch>& resident, const std::string& stop_node,
                                          std::uint32_t experts, std::uint32_t slots, std::uint64_t limit_bytes,
                                          std::uint64_t most_mappings,
                                          const std::map<std::string, std::uint64_t>& reserved_bytes,
                                          std::uint32_t reader_threads, bool strict, LoadingWatch* watch) {
  StreamedModelOptions options;
  for (const File& file : files) {
    const auto& [path, address, offset_bytes, size_bytes] = file;
    options.files.push_back({path, address, offset_bytes, size_bytes});
  }
  options.layers = to_layers(layers);
  options.resident = to_extents(resident);
  for (const auto& [name, bytes] : reserved_bytes) {
    options.reserved_bytes.emplace_back(parse_purpose(name), bytes);
  }
  options.stop_node = stop_node;
  options.experts = experts;
  options.slots = slots;
  options.limit_bytes = limit_bytes;
  options.most_mappings = most_mappings;
  options.reader.threads = reader_threads;
  options.watch = watch;
  options.uncovered = strict ? Uncovered::refused : Uncovered::reads_file;
  const LogDelivery delivery;
  const WithoutGil without_gil;
  return std::make_unique<StreamedModel>(options);
}

template <typename Function>
Function* function_at(std::uint64_t address) {
  return reinterpret_cast<Function*>(static_cast<std::uintptr_t>(address));
}

void require_layout(const std::map<std::string, std::uint64_t>& addresses) {
  GgmlFunctions functions{};
  const auto find = [&addresses](const char* name, auto*& function) {
    function = function_at<std::remove_reference_t<decltype(*function)>>(addresses.at(name));
  };
  find("ggml_init", functions.init);
  find("ggml_free", functions.free);
  find("ggml_new_tensor_2d", functions.new_tensor_2d);
  find("ggml_view_2d", functions.view_2d);
  find("ggml_mul_mat", functions.mul_mat);
  find("ggml_set_name", functions.set_name);
  find("ggml_get_name", functions.get_name);
  find("ggml_get_data", functions.get_data);
  require_known_layout(functions);
}

void bind_abort_flag(py::module_& module) {
  py::class_<AbortFlag>(module, "AbortFlag", "What ggml asks between the nodes of a graph.")
      .def(py::init<>())
      .def("set", &AbortFlag::set, "Gives up what is being computed.")
      .def("clear", &AbortFlag::clear, "Lets the next graph be computed.")
      .def_property_readonly("is_set", &AbortFlag::is_set)
      .def_property_readonly(
          "address", [](const AbortFlag& self) { return address_of(&self); }, "For the callback.")
      .def_property_readonly_static(
          "callback", [](const py::object&) { return reinterpret_cast<std::uintptr_t>(&AbortFlag::should_abort); },
          "Address of the function.");
}

void bind_loading_watch(py::module_& module) {
  using Unlocked = py::call_guard<WithoutGil>;
  py::class_<LoadingWatch>(module, "LoadingWatch", "Follows a model that another thread is loading, and may end that.")
      .def(py::init<>())
      .def("cancel", &LoadingWatch::cancel, Unlocked(), "Ends the loading with CancelledError.")
      .def_property_readonly("is_cancelled", &LoadingWatch::is_cancelled)
      .def(
          "get_progress",
          [](const LoadingWatch& self) {
            const LoadingProgress progress = self.progress();
            return std::pair(progress.read_bytes, progress.total_bytes);
          },
          Unlocked(), "Bytes read, and bytes to be read; 0 while that is not known.");
}

}  // namespace

void bind_engine(py::module_& module) {
  using Unlocked = py::call_guard<LogDelivery, WithoutGil>;
  bind_abort_flag(module);
  bind_loading_watch(module);
  module.def("require_ggml_layout", &require_layout, py::arg("functions"),
             "Compares ggml's tensors with what is expected of them; functions are addresses by name.");
  module.attr("SPARE_MAPPINGS") = kSpareMappings;
  py::class_<MappingCount>(module, "MappingCount", "How many mappings streaming a model takes.")
      .def(py::init(&make_mapping_count), py::kw_only(), py::arg("file_bytes"), py::arg("layers"), py::arg("resident"),
           py::arg("experts"))
      .def("most", &MappingCount::most, py::arg("slots"), "The most with that many slots.");
  py::class_<Statistics> statistics(module, "StreamedModelStatistics", "A snapshot of a streamed model.");
  add_fields(statistics, kFields);
  py::class_<StreamedModel>(module, "StreamedModel", "The weights of a model, laid over the engine's mapping.")
      .def(py::init(&make_model), py::kw_only(), py::arg("files"), py::arg("layers"), py::arg("resident"),
           py::arg("stop_node"), py::arg("experts"), py::arg("slots"), py::arg("limit_bytes"), py::arg("most_mappings"),
           py::arg("reserved_bytes"), py::arg("reader_threads"), py::arg("strict"), py::arg("watch") = nullptr)
      .def_property_readonly_static(
          "callback", [](const py::object&) { return reinterpret_cast<std::uintptr_t>(&LlamaHook::evaluate); },
          "Address of the function that ggml calls for every node.")
      .def_property_readonly(
          "hook_address", [](StreamedModel& self) { return address_of(&self.hook()); }, "For that callback.")
      .def_property_readonly(
          "abort_address", [](StreamedModel& self) { return address_of(&self.hook().abort_flag()); },
          "For AbortFlag.callback.")
      .def("begin", &StreamedModel::begin, Unlocked(), "Before a graph is computed.")
      .def("end", &StreamedModel::end, py::arg("is_computed"), Unlocked(), "After it; raises what went wrong.")
      .def("cancel", &StreamedModel::cancel, Unlocked(), "Ends the graph under way.")
      .def("get_statistics", &StreamedModel::statistics, Unlocked(), "Counters since it was loaded.")
      .def(
          "get_layer_requests",
          [](const StreamedModel& self) {
            std::vector<LayerNumbers> layers;
            for (const LayerRequests& layer : self.layer_requests()) {
              layers.emplace_back(layer.hits, layer.misses, layer.read_bytes, layer.stall_ns);
            }
            return layers;
          },
          Unlocked(), "Hits, misses, bytes read and time stalled in nanoseconds, by layer.")
      .def("close", &StreamedModel::close, Unlocked(), "Gives all memory back; the mappings show their files again.");
}

}  // namespace tierpool::bindings
