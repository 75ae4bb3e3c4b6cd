#include "tierpool/storage/weight_window.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"
#include "tierpool/storage/mapping_count.hpp"

namespace tierpool {
namespace {

[[noreturn]] void throw_refusal(const std::string& what) {
  const std::string reason = std::generic_category().message(errno);
  throw DeviceError("Cannot " + what + ": " + reason + "; raise the limit on mappings (sysctl vm.max_map_count)");
}

/// Anonymous memory for what is read before it is shown, moved away from the front on.
class Scratch {
 public:
  explicit Scratch(std::uint64_t bytes) : bytes_(bytes) {
    void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
      throw_refusal("map " + std::to_string(bytes) + " bytes for resident weights");
    }
    address_ = address_of(mapping);
  }
  ~Scratch() {
    if (bytes_ > 0) {
      munmap(pointer_at(address_), bytes_);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void make_read_only() const {
    if (mprotect(pointer_at(address_), bytes_, PROT_READ) != 0) {
      throw_refusal("protect resident weights");
    }
  }
  [[nodiscard]] bool move_front_over(std::uint64_t target, std::uint64_t bytes) noexcept {
    if (!move_pages_over(address_, bytes, target)) {
      return false;
    }
    address_ += bytes;
    bytes_ -= bytes;
    return true;
  }
  [[nodiscard]] std::uint64_t address() const noexcept { return address_; }

 private:
  std::uint64_t bytes_;
  std::uint64_t address_ = 0;
};

std::uint64_t total_bytes(std::span<const Extent> extents) {
  return std::accumulate(extents.begin(), extents.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Extent& extent) { return sum + extent.size_bytes; });
}

void read_into(std::uint64_t address, std::span<const Extent> extents, DirectReader& reader) {
  std::vector<ReadPiece> pieces;
  pieces.reserve(extents.size());
  for (const Extent& extent : extents) {
    pieces.push_back({extent.file_index, extent.offset_bytes, extent.size_bytes, address});
    address += extent.size_bytes;
  }
  reader.require_complete(reader.submit(pieces, ReadPriority::demand));
}

bool lies_before(const Extent& left, const Extent& right) {
  return std::tie(left.file_index, left.offset_bytes) < std::tie(right.file_index, right.offset_bytes);
}

std::vector<Extent> sorted(std::vector<Extent> extents) {
  std::sort(extents.begin(), extents.end(), lies_before);
  return extents;
}

/// The most with a unit in every slot.
std::uint64_t count_mappings(const UnitTable& units, const SlotPool& slots, const std::vector<WindowFile>& files,
                             const std::vector<Extent>& resident) {
  std::vector<Extent> mapped;
  mapped.reserve(files.size());
  for (const WindowFile& file : files) {
    mapped.push_back({static_cast<std::uint32_t>(mapped.size()), file.offset_bytes, file.size_bytes});
  }
  return MappingCount(units, resident, mapped).most(slots.slot_count());
}

/// Refuses overlaps.
void require_disjoint(const UnitTable& units, const std::vector<Extent>& resident) {
  std::vector<std::vector<Extent>> all{resident};
  for (UnitId unit = 0; unit < units.unit_count(); ++unit) {
    all.emplace_back(units.extents(unit).begin(), units.extents(unit).end());
  }
  static_cast<void>(UnitTable(all, units.page_bytes()));
}

}  // namespace

WeightWindow::WeightWindow(const UnitTable& units, const SlotPool& slots, std::vector<WindowFile> files,
                           std::vector<Extent> resident, Uncovered uncovered, const HostMappings& mappings)
    : units_(units),
      slots_(slots),
      files_(std::move(files)),
      uncovered_(uncovered),
      resident_(sorted(std::move(resident))),
      most_mappings_(count_mappings(units, slots, files_, resident_)),
      is_bound_(units.unit_count(), 0),
      is_copied_(resident_.size(), 0) {
  if (slots.file_descriptor() < 0) {
    throw ConfigError(
        "A weight window needs slots whose pages can be mapped a second time: a slot pool on a host "
        "device of shared memory");
  }
  if (units.largest_unit_bytes() > slots.slot_bytes()) {
    throw ConfigError("The largest unit has " + std::to_string(units.largest_unit_bytes()) +
                      " bytes, but a slot only " + std::to_string(slots.slot_bytes()) + ": use larger slots");
  }
  require_disjoint(units, resident_);
  require_mappings(mappings);
  // By our own descriptor from the start, so that mappings that come and go grow together with what lies beside them.
  for (std::uint32_t i = 0; i < files_.size(); ++i) {
    if (!uncover(i, files_[i].offset_bytes, files_[i].size_bytes, uncovered_)) {
      throw_refusal("map file " + std::to_string(i) + " of the weights");
    }
  }
}

WeightWindow::~WeightWindow() {
  for (std::uint32_t i = 0; i < files_.size(); ++i) {
    if (!uncover(i, files_[i].offset_bytes, files_[i].size_bytes, Uncovered::reads_file)) {
      log(LogLevel::error, "Could not map a file of weights again; its slots and copies stay mapped");
    }
  }
}

void WeightWindow::load_resident(std::span<const Extent> extents, MemoryPurpose purpose, DirectReader& reader,
                                 MemoryBudget& budget) {
  if (extents.empty()) {
    return;
  }
  const std::vector<std::size_t> found = find_uncopied(extents);
  shares_.reserve(shares_.size() + 1);
  MemoryBudget::Share share = budget.take(purpose, total_bytes(extents));
  Scratch scratch(share.bytes());
  read_into(scratch.address(), extents, reader);
  scratch.make_read_only();
  for (std::size_t i = 0; i < extents.size(); ++i) {
    if (!scratch.move_front_over(address(extents[i]), extents[i].size_bytes)) {
      undo(extents.first(i + 1));
      throw_refusal("lay resident weights over their file");
    }
  }
  for (const std::size_t index : found) {
    is_copied_[index] = 1;
  }
  shares_.push_back(std::move(share));
}

void WeightWindow::bind(UnitId unit, SlotId slot) {
  if (is_bound_[unit] != 0) {
    throw InvalidHandleError("Unit " + std::to_string(unit) + " is bound already");
  }
  std::uint64_t offset_bytes = slots_.offset_bytes(slot);
  const std::span<const Extent> extents = units_.extents(unit);
  for (std::size_t i = 0; i < extents.size(); ++i) {
    // Populated at once: the pages are there, and mapping them here is cheaper than a fault for each.
    const int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
    if (mmap(pointer_at(address(extents[i])), extents[i].size_bytes, PROT_READ, flags, slots_.file_descriptor(),
             static_cast<off_t>(offset_bytes)) == MAP_FAILED) {
      undo(extents.first(i + 1));
      throw_refusal("show unit " + std::to_string(unit));
    }
    offset_bytes += extents[i].size_bytes;
  }
  is_bound_[unit] = 1;
}

void WeightWindow::unbind(UnitId unit) {
  if (is_bound_[unit] == 0) {
    throw InvalidHandleError("Unit " + std::to_string(unit) + " is not bound");
  }
  for (const Extent& extent : units_.extents(unit)) {
    if (!uncover(extent.file_index, extent.offset_bytes, extent.size_bytes, uncovered_)) {
      throw_refusal("hide unit " + std::to_string(unit));
    }
  }
  is_bound_[unit] = 0;
}

void WeightWindow::require_mappings(const HostMappings& mappings) const {
  const std::uint64_t taken = mappings.used - std::min<std::uint64_t>(mappings.used, files_.size());
  if (taken + most_mappings_ + kSpareMappings > mappings.limit) {
    throw BudgetError("The slots and copies can need " + std::to_string(most_mappings_) +
                      " mappings, but of the limit of " + std::to_string(mappings.limit) + " this process has " +
                      std::to_string(taken) + " for other things and keeps " + std::to_string(kSpareMappings) +
                      " to spare: raise the limit (sysctl vm.max_map_count) or use fewer slots");
  }
}

std::vector<std::size_t> WeightWindow::find_uncopied(std::span<const Extent> extents) const {
  std::vector<std::size_t> found;
  for (const Extent& extent : extents) {
    const auto place = std::lower_bound(resident_.begin(), resident_.end(), extent, lies_before);
    const auto index = static_cast<std::size_t>(place - resident_.begin());
    if (place == resident_.end() || *place != extent || is_copied_[index] != 0) {
      throw ConfigError("The " + std::to_string(extent.size_bytes) + " bytes at " +
                        std::to_string(extent.offset_bytes) + " of file " + std::to_string(extent.file_index) +
                        " are no extent that is resident and not yet copied");
    }
    found.push_back(index);
  }
  std::sort(found.begin(), found.end());
  if (std::adjacent_find(found.begin(), found.end()) != found.end()) {
    throw ConfigError("The same resident extent cannot be copied twice");
  }
  return found;
}

// The last one too: a mapping that fails may have unmapped what was there.
void WeightWindow::undo(std::span<const Extent> extents) const noexcept {
  const int error = errno;
  for (const Extent& extent : extents) {
    static_cast<void>(uncover(extent.file_index, extent.offset_bytes, extent.size_bytes, uncovered_));
  }
  errno = error;
}

bool WeightWindow::uncover(std::uint32_t file_index, std::uint64_t offset_bytes, std::uint64_t size_bytes,
                           Uncovered uncovered) const noexcept {
  const WindowFile& file = files_[file_index];
  void* range = pointer_at(file.address + (offset_bytes - file.offset_bytes));
  if (uncovered == Uncovered::refused) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    return mmap(range, size_bytes, PROT_NONE, flags, -1, 0) != MAP_FAILED;
  }
  const int flags = MAP_SHARED | MAP_FIXED;
  return mmap(range, size_bytes, PROT_READ, flags, file.file_descriptor, static_cast<off_t>(offset_bytes)) !=
         MAP_FAILED;
}

}  // namespace tierpool
