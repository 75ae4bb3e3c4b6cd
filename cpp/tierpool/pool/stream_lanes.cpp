#include "tierpool/pool/stream_lanes.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {
namespace {

std::uint64_t new_id() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

/// The lane this thread asked for last.
struct LastLane {
  std::uint64_t lanes_id = 0;
  StreamKey stream;
  MemoryPool* lane = nullptr;
};

thread_local constinit LastLane last_lane;

}  // namespace

StreamLanes::StreamLanes(MemoryPool& home, Device& device, std::optional<std::uint64_t> max_bytes,
                         std::optional<std::uint64_t> commit_limit_bytes)
    : limit(max_bytes),
      commit_limit(commit_limit_bytes),
      events(device.streams()),
      pending(events),
      home_(home),
      id_(new_id()),
      fork_handler_(
          ForkHandler::Rank::lanes,
          [this] {
            mutex_.lock();
            pending.lock();
          },
          [this] {
            pending.unlock();
            mutex_.unlock();
          },
          [this] {
            pending.forget_completions();
            pending.unlock();
            mutex_.unlock();
          }) {}

MemoryPool* StreamLanes::find(const StreamKey& stream) noexcept {
  if (last_lane.lanes_id == id_ && last_lane.stream == stream) [[likely]] {
    return last_lane.lane;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& lane : lanes_) {
    if (lane->stream() == stream) {
      last_lane = {id_, stream, lane.get()};
      return lane.get();
    }
  }
  return nullptr;
}

MemoryPool& StreamLanes::find_at(std::uint64_t address) noexcept {
  if (last_lane.lanes_id == id_ && last_lane.lane->contains(address)) {
    return *last_lane.lane;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found =
      std::find_if(lanes_.begin(), lanes_.end(), [address](const auto& lane) { return lane->contains(address); });
  if (found == lanes_.end()) {
    found = std::find_if(lanes_.begin(), lanes_.end(),
                         [address](const auto& lane) { return static_cast<bool>(lane->find_array(address)); });
  }
  return found == lanes_.end() ? home_ : **found;
}

MemoryPool* StreamLanes::add(const StreamKey& stream, std::shared_ptr<MemoryPool> lane) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& other : lanes_) {
    if (other->stream() == stream) {
      return other.get();
    }
  }
  try {
    if (ended_) {
      return nullptr;
    }
    lanes_.push_back(std::move(lane));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  are_several_.store(true, std::memory_order_release);
  return lanes_.back().get();
}

std::vector<MemoryPool*> StreamLanes::all(bool last) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ended_ = ended_ || last;
  std::vector<MemoryPool*> lanes{&home_};
  for (const auto& lane : lanes_) {
    lanes.push_back(lane.get());
  }
  return lanes;
}

void StreamLanes::end() noexcept {
  std::vector<std::shared_ptr<MemoryPool>> ended;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    ended.swap(lanes_);
  }
  // Each ends here or with the last of its allocations.
}

}  // namespace tierpool
