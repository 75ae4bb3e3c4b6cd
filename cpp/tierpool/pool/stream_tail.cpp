#include "tierpool/pool/stream_tail.hpp"

#include <limits>
#include <utility>

namespace tierpool {
namespace {

constexpr std::uint64_t kUnmarked = std::numeric_limits<std::uint64_t>::max();

}  // namespace

StreamTail::~StreamTail() {
  if (event_ != kNoEvent) {
    events_.recycle(event_);
  }
}

bool StreamTail::mark(const StreamKey& stream, std::uint64_t returned) noexcept {
  // Recorded under the lock, so that the event kept is the last one recorded.
  const std::lock_guard<std::mutex> lock(mutex_);
  EventHandle event = kNoEvent;
  if (events_.record(stream, event) != StreamEvents::Recorded::yes) {
    return false;
  }
  if (const EventHandle before = std::exchange(event_, event); before != kNoEvent) {
    events_.recycle(before);
  }
  returned_ = returned;
  return true;
}

bool StreamTail::is_marked(std::uint64_t returned) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return returned_ == returned;
}

StreamTail::State StreamTail::over(std::uint64_t returned, bool may_wait) noexcept {
  EventHandle event = kNoEvent;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (returned_ != returned) {
      return State::unknown;
    }
    if (event_ == kNoEvent || !may_wait) {
      return event_ == kNoEvent || events_.is_complete(event_) ? State::over : State::busy;
    }
    event = std::exchange(event_, kNoEvent);  // so that no one records it again while it is waited for
    returned_ = kUnmarked;
  }
  const bool is_over = events_.wait(event);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (returned_ == kUnmarked) {
    event_ = std::exchange(event, kNoEvent);
    returned_ = returned;
  }
  if (event != kNoEvent) {
    events_.recycle(event);
  }
  return is_over ? State::over : State::busy;
}

}  // namespace tierpool
