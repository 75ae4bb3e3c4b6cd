#include "tierpool/pool/recorded_streams.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace tierpool {

bool RecordedStreams::add(std::uint64_t address, const StreamKey& stream) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<StreamKey>& recorded = streams_[address];
    count_.store(streams_.size(), std::memory_order_release);
    if (std::find(recorded.begin(), recorded.end(), stream) == recorded.end()) {
      recorded.push_back(stream);
    }
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

std::vector<StreamKey> RecordedStreams::take(std::uint64_t address) noexcept {
  std::vector<StreamKey> recorded;
  if (count_.load(std::memory_order_acquire) != 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = streams_.find(address);
    if (found != streams_.end()) {
      recorded = std::move(found->second);
      streams_.erase(found);
      count_.store(streams_.size(), std::memory_order_release);
    }
  }
  return recorded;
}

bool RecordedStreams::find(std::uint64_t address) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return streams_.find(address) != streams_.end();
}

}  // namespace tierpool
