#include "tierpool/pool/stream_events.hpp"

#include <new>

#include "tierpool/base/thread_number.hpp"

namespace tierpool {

bool StreamEvents::is_reachable(const StreamKey& stream) noexcept {
  if (stream.handle == kPerThreadStream) {
    return stream.id == thread_number();
  }
  return stream.handle == kDefaultStream || stream.id == 0 || stream.id == streams_->stream_id(stream.handle);
}

StreamEvents::~StreamEvents() {
  for (const EventHandle event : spare_) {
    streams_->destroy_event(event);
  }
}

EventHandle StreamEvents::take() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!spare_.empty()) {
      const EventHandle event = spare_.back();
      spare_.pop_back();
      return event;
    }
  }
  return streams_->create_event();
}

void StreamEvents::recycle(EventHandle event) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    spare_.push_back(event);
  } catch (const std::bad_alloc&) {
    streams_->destroy_event(event);
  }
}

StreamEvents::Recorded StreamEvents::record(const StreamKey& stream, EventHandle& event) noexcept {
  if (!is_reachable(stream)) {
    return Recorded::failed;
  }
  // Asked first: to record on the default stream would invalidate another stream's capture.
  if (streams_->is_capturing(stream.handle)) {
    return stream.handle <= kLegacyStream ? Recorded::not_now : Recorded::capturing;
  }
  const EventHandle taken = take();
  if (taken == kNoEvent) {
    return Recorded::failed;
  }
  if (!streams_->record_event(taken, stream.handle)) {
    recycle(taken);
    return Recorded::failed;
  }
  event = taken;
  return Recorded::yes;
}

bool StreamEvents::is_complete(EventHandle event) noexcept {
  return streams_->query_event(event) == EventState::complete;
}

bool StreamEvents::order(const StreamKey& later, EventHandle event) noexcept {
  // A wait for what lies outside of it would invalidate a capture.
  return is_reachable(later) && !streams_->is_capturing(later.handle) && streams_->wait_event(later.handle, event);
}

}  // namespace tierpool
