#include "tierpool/trace/trace.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

// Far above any machine, and low enough that no sum or doubling of sizes below overflows.
constexpr std::uint64_t kMaxLiveBytes = kGiB * kGiB;

/// What is live while the events are read, and what was.
class LiveIds {
 public:
  /// The slot of a new allocation.
  std::uint32_t allocate(std::uint64_t line, std::uint64_t id, std::uint64_t bytes) {
    const auto [entry, is_new] = last_use_.try_emplace(id);
    Use& use = entry->second;
    if (!is_new && use.live) {
      fail(line, id, "is allocated, but is live since line " + std::to_string(use.line));
    }
    if (bytes > kMaxLiveBytes - live_bytes_) {
      fail(line, id, "asks for " + std::to_string(bytes) + " bytes, which makes more than 1 EiB live at once");
    }
    live_bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, live_bytes_);
    use = Use{bytes, line, take_slot(line, id), true};
    return use.slot;
  }

  /// The slot of the allocation that ends.
  std::uint32_t free(std::uint64_t line, std::uint64_t id, std::uint64_t bytes) {
    const auto entry = last_use_.find(id);
    if (entry == last_use_.end()) {
      fail(line, id, "is freed, but was never allocated");
    }
    Use& use = entry->second;
    if (!use.live) {
      fail(line, id, "is freed again, after line " + std::to_string(use.line));
    }
    if (use.bytes != bytes) {
      fail(line, id,
           "is freed with " + std::to_string(bytes) + " bytes, but was allocated with " + std::to_string(use.bytes) +
               " in line " + std::to_string(use.line));
    }
    live_bytes_ -= bytes;
    use.live = false;
    use.line = line;
    free_slots_.push_back(use.slot);
    return use.slot;
  }

  [[nodiscard]] std::uint64_t peak_bytes() const noexcept { return peak_bytes_; }
  [[nodiscard]] std::uint32_t slot_count() const noexcept { return slot_count_; }

 private:
  struct Use {
    std::uint64_t bytes = 0;
    std::uint64_t line = 0;  // of the allocation while live, else of the free
    std::uint32_t slot = 0;
    bool live = false;
  };

  [[noreturn]] static void fail(std::uint64_t line, std::uint64_t id, const std::string& problem) {
    throw TraceError("line " + std::to_string(line) + ": id " + std::to_string(id) + " " + problem +
                     "; record the trace again or correct this line");
  }

  std::uint32_t take_slot(std::uint64_t line, std::uint64_t id) {
    if (!free_slots_.empty()) {
      const std::uint32_t slot = free_slots_.back();
      free_slots_.pop_back();
      return slot;
    }
    if (slot_count_ == std::numeric_limits<std::uint32_t>::max()) {
      fail(line, id, "is one allocation more than can be live at once");
    }
    return slot_count_++;
  }

  std::unordered_map<std::uint64_t, Use> last_use_;
  std::vector<std::uint32_t> free_slots_;
  std::uint32_t slot_count_ = 0;
  std::uint64_t live_bytes_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace

Trace::Trace(std::span<const std::uint8_t> ops, std::span<const std::uint64_t> ids,
             std::span<const std::uint64_t> bytes, std::uint64_t first_line) {
  if (ops.size() != ids.size() || ops.size() != bytes.size()) {
    throw std::invalid_argument("a trace needs as many operations (" + std::to_string(ops.size()) + ") as ids (" +
                                std::to_string(ids.size()) + ") and sizes (" + std::to_string(bytes.size()) + ")");
  }
  LiveIds live;
  events_.reserve(ops.size());
  for (std::size_t index = 0; index < ops.size(); ++index) {
    const std::uint64_t line = first_line + index;
    if (ops[index] != kAllocate && ops[index] != kFree) {
      throw TraceError("line " + std::to_string(line) + ": unknown operation " + std::to_string(ops[index]) +
                       "; 'a' allocates, 'f' frees");
    }
    const bool allocates = ops[index] == kAllocate;
    const std::uint32_t slot =
        allocates ? live.allocate(line, ids[index], bytes[index]) : live.free(line, ids[index], bytes[index]);
    events_.push_back({bytes[index], slot, allocates});
    allocation_count_ += allocates ? 1 : 0;
  }
  slot_count_ = live.slot_count();
  peak_live_bytes_ = live.peak_bytes();
}

}  // namespace tierpool
