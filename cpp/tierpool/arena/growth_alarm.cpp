#include "tierpool/arena/growth_alarm.hpp"

#include <algorithm>

#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

constexpr std::size_t kNamedClasses = 5;

}  // namespace

bool GrowthAlarm::note_fresh(std::uint64_t count) noexcept {
  fresh_in_epoch_ += count;
  if (has_warned_ || fresh_in_epoch_ <= kFreshWithoutReset) {
    return false;
  }
  has_warned_ = true;
  return true;
}

GrowthAlarm::EpochEnd GrowthAlarm::note_reset() noexcept {
  EpochEnd end;
  if (fresh_in_epoch_ == 0) {
    end.quiet_again = growing_epochs_ != 0;
    growing_epochs_ = 0;
    return end;
  }
  fresh_in_epoch_ = 0;
  ++growing_epochs_;
  end.warn = growing_epochs_ == kGrowingEpochs && !has_warned_;
  has_warned_ = has_warned_ || end.warn;
  return end;
}

std::string GrowthAlarm::message(std::span<const FreshCount> classes, std::span<const std::string> origins,
                                 bool tracks_origins) const {
  const bool lacks_reset = growing_epochs_ < kGrowingEpochs;
  std::string text = "BufferPool: ";
  text += lacks_reset ? std::to_string(fresh_in_epoch_) + " fresh allocations without a reset"
                      : "Fresh allocations in " + std::to_string(growing_epochs_) + " resets in a row";
  const char* separator = ": ";
  for (const FreshCount& one : classes.first(std::min(classes.size(), kNamedClasses))) {
    text += separator + std::to_string(one.count) + " of " + format_memory_size(one.class_bytes);
    separator = ", ";
  }
  if (classes.size() > kNamedClasses) {
    text += " and " + std::to_string(classes.size() - kNamedClasses) + " more sizes";
  }
  text +=
      lacks_reset
          ? "; is a reset() missing at the end of a step?"
          : "; sizes that change in every step never fit a free buffer: round them up, or keep them out of the pool";
  separator = "; allocated at ";
  for (const std::string& origin : origins) {
    text += separator + origin;
    separator = ", ";
  }
  return text + (tracks_origins ? "" : "; set track_origins=True to see where they were allocated");
}

}  // namespace tierpool
