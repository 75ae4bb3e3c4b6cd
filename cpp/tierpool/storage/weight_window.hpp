#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tierpool/device/host_pages.hpp"
#include "tierpool/storage/direct_reader.hpp"
#include "tierpool/storage/memory_budget.hpp"
#include "tierpool/storage/slot_binding.hpp"

namespace tierpool {

/// A mapping of a file, or of a part of it, where an engine looks for its weights. Whole pages.
struct WindowFile {
  std::uint64_t address = 0;
  std::uint64_t offset_bytes = 0;  ///< of the file's first mapped byte
  std::uint64_t size_bytes = 0;
  int file_descriptor = -1;  ///< of the same file; stays the caller's, outlives the window
};

/// What an address shows that no slot and no copy covers.
enum class Uncovered {
  reads_file,  ///< the file's bytes, slowly
  refused      ///< nothing: reading it ends the process. For tests that nothing is read from where it should not be
};

/// The host's binding: slots, and copies of what stays, laid over mappings of the files, so that every address shows
/// the file's bytes at any moment, whatever is loaded.
///
/// bind() and unbind() may be called for different units at once; everything else from one thread. Nobody may read a
/// unit's addresses while it is being bound or unbound, unless uncovered pages read the file.
class WeightWindow final : public SlotBinding {
 public:
  /// `files` by file index; `resident` is what load_resident() may copy. Takes over the mappings until it dies and then
  /// leaves them showing the files.
  /// Throws ConfigError when an extent lies outside of them or on another one, or the slots have no file descriptor,
  /// BudgetError when slots and copies could need more mappings than `mappings`, those of this process, leaves free,
  /// DeviceError when the system refuses. `units` and `slots` outlive the window.
  WeightWindow(const UnitTable& units, const SlotPool& slots, std::vector<WindowFile> files,
               std::vector<Extent> resident, Uncovered uncovered, const HostMappings& mappings = host_mappings());
  ~WeightWindow() override;
  WeightWindow(const WeightWindow&) = delete;
  WeightWindow& operator=(const WeightWindow&) = delete;

  /// Copies extents of `resident` into memory, where they stay. All or nothing: throws ReadError, CancelledError when
  /// the reader was closed, BudgetError, DeviceError, and ConfigError for what is no such extent, or already copied.
  void load_resident(std::span<const Extent> extents, MemoryPurpose purpose, DirectReader& reader,
                     MemoryBudget& budget);

  void bind(UnitId unit, SlotId slot) override;
  void unbind(UnitId unit) override;

  /// Mappings that the files take at most, with everything copied and a unit in every slot.
  [[nodiscard]] std::uint64_t most_mappings() const noexcept { return most_mappings_; }

  /// Where an extent is seen.
  [[nodiscard]] std::uint64_t address(const Extent& extent) const noexcept {
    const WindowFile& file = files_[extent.file_index];
    return file.address + (extent.offset_bytes - file.offset_bytes);
  }

 private:
  void require_mappings(const HostMappings& mappings) const;
  /// Where in `resident_` the extents are, none of them copied yet.
  [[nodiscard]] std::vector<std::size_t> find_uncopied(std::span<const Extent> extents) const;
  /// Uncovers what a call that fails has covered; keeps errno.
  void undo(std::span<const Extent> extents) const noexcept;
  /// Shows what uncovered addresses show. False with errno set when the system refused.
  [[nodiscard]] bool uncover(std::uint32_t file_index, std::uint64_t offset_bytes, std::uint64_t size_bytes,
                             Uncovered uncovered) const noexcept;

  const UnitTable& units_;
  const SlotPool& slots_;
  const std::vector<WindowFile> files_;
  const Uncovered uncovered_;
  const std::vector<Extent> resident_;  // as they lie in the files
  const std::uint64_t most_mappings_;
  std::vector<std::uint8_t> is_bound_;   // by unit
  std::vector<std::uint8_t> is_copied_;  // by resident extent
  std::vector<MemoryBudget::Share> shares_;
};

}  // namespace tierpool
