#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/engine/llama_hook.hpp"
#include "tierpool/engine/loading_watch.hpp"
#include "tierpool/engine/model_layout.hpp"
#include "tierpool/storage/direct_reader.hpp"
#include "tierpool/storage/extent.hpp"
#include "tierpool/storage/file_source.hpp"
#include "tierpool/storage/memory_budget.hpp"
#include "tierpool/storage/weight_window.hpp"

namespace tierpool {

/// A file of a model, and where the engine has mapped it, or the part of it that holds weights.
struct MappedFile {
  std::string path;
  std::uint64_t address = 0;
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
};

struct StreamedModelOptions {
  std::vector<MappedFile> files;
  std::vector<LayerBytes> layers;  ///< what comes and goes, in order of use
  std::vector<Extent> resident;    ///< the bytes of all other tensors
  std::string stop_node;           ///< see LlamaHook
  std::uint32_t experts = 0;  ///< of a layer; each of its tensors has as many equal parts. 0: dense layers, in a ring
  std::uint32_t slots = 0;    ///< for experts, or of the ring
  std::uint64_t limit_bytes = 0;                                            ///< of memory
  std::vector<std::pair<MemoryPurpose, std::uint64_t>> reserved_bytes;      ///< of it, for what is not allocated here
  std::uint64_t most_mappings = std::numeric_limits<std::uint64_t>::max();  ///< that the files may take
  DirectReader::Options reader = {};
  Uncovered uncovered = Uncovered::reads_file;
  LoadingWatch* watch = nullptr;               ///< may be null; outlives the constructor
  FileSource::PreadCall pread_call = nullptr;  ///< a test's, in place of the system's
};

/// Counters since the model was loaded.
struct StreamedModelStatistics {
  GateStatistics gate;               ///< without the experts that were read while loading
  std::uint64_t loaded_bytes = 0;    ///< read while loading
  std::uint64_t read_busy_ns = 0;    ///< since then
  std::uint64_t buffered_files = 0;  ///< that cannot be read past the page cache
  std::uint64_t used_bytes = 0;      ///< of the memory
  std::uint64_t peak_bytes = 0;
  std::uint64_t limit_bytes = 0;
};

/// The weights of one model, laid over the engine's own mapping of its files: what stays is copied, what comes and goes
/// is brought by a cache of experts or a ring of layers while the engine computes.
///
/// begin(), the callbacks, end() and close() are for one thread at a time; everything else for any. In a forked child
/// only the destructor may be called.
class StreamedModel {
 public:
  /// Takes over the mappings and reads what stays. Throws ConfigError, ReadError, BudgetError, DeviceError, and
  /// CancelledError when the watch was cancelled.
  explicit StreamedModel(const StreamedModelOptions& options);
  /// Ends as close() does.
  ~StreamedModel();
  StreamedModel(const StreamedModel&) = delete;
  StreamedModel& operator=(const StreamedModel&) = delete;

  /// For the callbacks. Throws Error after close().
  [[nodiscard]] LlamaHook& hook();

  /// Before a graph is computed. Throws ReadError when a file is no longer what it was, Error in a forked child.
  void begin();
  /// After it; see LlamaHook::end().
  void end(bool is_computed);
  /// Ends the graph under way. Nothing happens after close().
  void cancel() noexcept;

  /// After close(), as they were before it.
  [[nodiscard]] StreamedModelStatistics statistics() const;
  [[nodiscard]] std::vector<LayerRequests> layer_requests() const;

  /// Gives all memory back; the mappings show their files again. Does nothing the second time.
  void close() noexcept;

 private:
  struct Parts;
  [[nodiscard]] StreamedModelStatistics count() const;

  mutable std::shared_mutex closing_;  // held alone to take the parts away
  std::unique_ptr<Parts> parts_;
  StreamedModelStatistics last_statistics_;
  std::vector<LayerRequests> last_requests_;
};

}  // namespace tierpool
