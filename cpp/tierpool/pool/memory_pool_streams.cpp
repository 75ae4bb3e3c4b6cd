// The order of streams: which lane serves a stream, and where a lane finds memory when it has none left.

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/thread_number.hpp"
#include "tierpool/device/stream_order.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

AllocationOutcome MemoryPool::key_of(StreamHandle stream, StreamKey& key) const noexcept {
  if (stream <= kLegacyStream) {
    key = StreamKey{};  // never captured
    return AllocationOutcome::served;
  }
  DeviceStreams* streams = device_->streams();
  if (streams == nullptr) {
    return AllocationOutcome::no_streams;
  }
  key = {stream, stream == kPerThreadStream ? thread_number() : streams->stream_id(stream)};
  return AllocationOutcome::served;
}

MemoryPool* MemoryPool::lane(StreamHandle stream, AllocationOutcome& refusal) noexcept {
  if (stream <= kLegacyStream) {
    return &lanes_->home();
  }
  DeviceStreams* streams = device_->streams();
  if (streams == nullptr) {
    refusal = AllocationOutcome::no_streams;
    return nullptr;
  }
  if (!is_stream_ordered_) {
    return &lanes_->home();
  }
  // What a graph uses would have to stay as it is for as long as the graph can be launched. Before any other question
  // about the stream, which could invalidate the capture.
  if (streams->is_capturing(stream)) {
    refusal = AllocationOutcome::capturing;
    return nullptr;
  }
  StreamKey key;
  refusal = key_of(stream, key);
  if (refusal != AllocationOutcome::served) {
    return nullptr;
  }
  MemoryPool* found = lanes_->find(key);
  return found != nullptr ? found : add_lane(key, refusal);
}

MemoryPool& MemoryPool::lane(StreamHandle stream) {
  AllocationOutcome refusal = AllocationOutcome::served;
  MemoryPool* found = lane(stream, refusal);
  if (found == nullptr) {
    throw_no_lane(refusal, stream);
  }
  return *found;
}

void MemoryPool::require_stream(StreamHandle stream) const {
  if (stream <= kLegacyStream) {
    return;
  }
  DeviceStreams* streams = device_->streams();
  if (streams == nullptr) {
    throw DeviceError("device '" + device_->name() + "' has no streams, got stream " + std::to_string(stream) +
                      "; leave the stream out");
  }
  streams->require_stream(stream);
}

void MemoryPool::throw_no_lane(AllocationOutcome refusal, StreamHandle stream) const {
  require_stream(stream);
  if (refusal == AllocationOutcome::capturing) {
    throw DeviceError("cannot allocate on stream " + std::to_string(stream) + " of device '" + device_->name() +
                      "': it is being captured into a graph, which would use the memory each time it is launched; "
                      "allocate before the capture begins and keep the buffers as long as the graph");
  }
  throw_failure(refusal, 0);
}

MemoryPool* MemoryPool::add_lane(const StreamKey& stream, AllocationOutcome& refusal) noexcept {
  if (is_closed()) {
    refusal = AllocationOutcome::closed;
    return nullptr;
  }
  try {
    device_->streams()->require_stream(stream.handle);
  } catch (const std::exception&) {
    refusal = AllocationOutcome::no_streams;
    return nullptr;
  }
  refusal = AllocationOutcome::out_of_memory;
  try {
    PoolConfig config = config_;
    config.warmup_bytes.clear();
    return lanes_->add(stream, own(new MemoryPool(config, device_, lanes_, stream)));
  } catch (const std::exception&) {
    return nullptr;
  }
}

StreamHandle MemoryPool::stream_here() const noexcept {
  return is_stream_ordered_ && lanes_->events.is_reachable(stream_) ? stream_.handle : kDefaultStream;
}

void MemoryPool::order_after_own(StreamHandle later) {
  StreamKey key;
  if (!is_stream_ordered_ || key_of(later, key) != AllocationOutcome::served || key == stream_) {
    return;
  }
  require_stream(later);
  const bool is_named = lanes_->events.is_reachable(stream_);
  DeviceStreams& streams = *device_->streams();
  if (streams.is_capturing(later) || (is_named && streams.is_capturing(stream_.handle))) {
    throw DeviceError("Cannot order stream " + std::to_string(later) + " after the work of memory of device '" +
                      device_->name() +
                      "': a stream is being captured into a graph, which cannot wait for what lies outside of it; copy "
                      "or export before the capture begins");
  }
  if (is_named) {
    order_after(streams, later, stream_.handle);
  } else if (!lanes_->events.wait_for_device()) {
    throw DeviceError("Cannot order stream " + std::to_string(later) + " after the work of memory of device '" +
                      device_->name() +
                      "', whose stream is another thread's or gone, nor wait for the device: it has "
                      "failed, or one of its streams is being captured");
  }
}

bool MemoryPool::contains(std::uint64_t address) const noexcept {
  return std::any_of(heaps_.begin(), heaps_.end(), [address](const auto& heap) { return heap->contains(address); });
}

MemoryPool& MemoryPool::lane_of(std::uint64_t address) noexcept {
  MemoryPool& home = lanes_->home();
  return !lanes_->are_several() || home.contains(address) ? home : lanes_->find_at(address);
}

AllocationOutcome MemoryPool::serve_without_growth(const AllocationRequest& request, const Plan& plan,
                                                   Allocation& allocation) noexcept {
  Plan frugal = plan;
  frugal.may_grow = false;
  const AllocationOutcome outcome = try_sizes(request, frugal, allocation);
  if (outcome != AllocationOutcome::would_block || !caches_.may_hold_blocks()) {
    return outcome;
  }
  caches_.flush();
  return try_sizes(request, frugal, allocation);
}

bool MemoryPool::has_addresses_for(std::uint64_t bytes) const noexcept {
  return std::any_of(heaps_.begin(), heaps_.end(),
                     [bytes](const auto& heap) { return heap->view().largest_free_bytes >= bytes; });
}

AllocationOutcome MemoryPool::serve_under_pressure(const AllocationRequest& request, const Plan& plan,
                                                   Allocation& allocation) noexcept {
  PendingReleases& pending = lanes_->pending;
  for (;;) {
    const std::uint64_t epoch = pending.epoch();
    const AllocationOutcome outcome = try_under_pressure(request, plan, allocation);
    if (outcome != AllocationOutcome::out_of_memory) {
      return outcome;
    }
    // Another thread may have had all that is pending in its hands meanwhile.
    if (!request.may_block && (pending.is_completing() || pending.epoch() != epoch)) {
      return AllocationOutcome::would_block;
    }
    if (!request.may_block || request.heaps_only || !pending.await_completions(epoch)) {
      return AllocationOutcome::out_of_memory;
    }
  }
}

AllocationOutcome MemoryPool::try_under_pressure(const AllocationRequest& request, const Plan& plan,
                                                 Allocation& allocation) noexcept {
  const Polled polled = poll_pending(&stream_, request.may_block);
  if (polled == Polled::came_back) {
    const AllocationOutcome outcome = try_sizes(request, plan, allocation);
    if (outcome != AllocationOutcome::out_of_memory) {
      return outcome;
    }
  }
  if (polled == Polled::must_block) {
    return AllocationOutcome::would_block;
  }
  if (lanes_->pending.count() == 0 && !has_addresses_for(plan.exact_bytes)) {
    return AllocationOutcome::out_of_memory;
  }
  if (!request.may_block) {
    return AllocationOutcome::would_block;
  }
  // From what costs nothing to what waits.
  const auto has_relieved = [&](int step) {
    switch (step) {
      case 0:
        return reclaim(plan.exact_bytes, Wait::nothing);
      case 1:
        return is_stream_ordered_ && complete_pending(Completion::ordered);
      case 2:
      case 4:
        return complete_pending(Completion::awaited, step == 2 ? Wait::events : Wait::device);
      default:
        return reclaim(plan.exact_bytes, step == 3 ? Wait::events : Wait::device);
    }
  };
  const int waiting_steps = plan.most == Wait::device ? 6 : 4;
  const int steps = request.heaps_only ? 2 : waiting_steps;  // who asks for no more than heaps have does not wait
  for (int step = 0; step < steps; ++step) {
    if (!has_relieved(step)) {
      continue;
    }
    const AllocationOutcome outcome = try_sizes(request, plan, allocation);
    if (outcome != AllocationOutcome::out_of_memory) {
      return outcome;
    }
  }
  return AllocationOutcome::out_of_memory;
}

bool MemoryPool::reclaim(std::uint64_t bytes, Wait most) noexcept {
  if (!is_stream_ordered_ || !has_addresses_for(bytes)) {
    return false;
  }
  const std::uint64_t enough_bytes = bytes + device_->granularity_bytes();  // a block may begin inside a granule
  std::uint64_t reclaimed = 0;
  bool refused = false;
  try {
    std::vector<MemoryPool*> lanes = lanes_->all(false);
    // Its own last: what is free there fits badly, but does.
    std::stable_partition(lanes.begin(), lanes.end(), [this](const MemoryPool* lane) { return lane != this; });
    for (MemoryPool* lane : lanes) {
      if (reclaimed >= enough_bytes) {
        break;
      }
      if (most != Wait::nothing && lane != this) {
        static_cast<void>(lane->complete_pending(Completion::settled, most));
      }
      const TrimOptions options{enough_bytes - reclaimed, most, lane == this};
      reclaimed += lane->trim_lane(options, refused);
    }
  } catch (const std::bad_alloc&) {
    // Then with what there is so far.
  }
  return reclaimed != 0;
}

bool MemoryPool::settle_other_lanes(Wait most) noexcept {
  bool any = false;
  try {
    for (MemoryPool* lane : lanes_->all(false)) {
      any = (lane != this && lane->complete_pending(Completion::settled, most)) || any;
    }
  } catch (const std::bad_alloc&) {
    // Then theirs stays pending for now.
  }
  return any;
}

AllocationOutcome MemoryPool::plan_within_limit(const AllocationRequest& request, Plan& plan) noexcept {
  PendingReleases& pending = lanes_->pending;
  for (;;) {
    const std::uint64_t epoch = pending.epoch();
    if (this->plan(request, plan)) {
      return AllocationOutcome::served;
    }
    if (!has_streams_ || plan.exact_bytes > limit_.max_bytes()) {
      return AllocationOutcome::over_limit;
    }
    const Polled polled = poll_pending(&stream_, request.may_block);
    if (polled == Polled::came_back) {
      continue;
    }
    if (!request.may_block) {
      const bool may_come_back = pending.count() != 0 || pending.is_completing() || pending.epoch() != epoch;
      return may_come_back ? AllocationOutcome::would_block : AllocationOutcome::over_limit;
    }
    if (is_stream_ordered_ && complete_pending(Completion::ordered)) {
      continue;
    }
    if (request.heaps_only) {  // which waits for no stream
      return AllocationOutcome::over_limit;
    }
    const auto has_waited = [this](Wait most) {
      return complete_pending(Completion::awaited, most) || settle_other_lanes(most);
    };
    if (!has_waited(Wait::events) && !has_waited(Wait::device) && !pending.await_completions(epoch)) {
      return AllocationOutcome::over_limit;
    }
  }
}

std::uint64_t MemoryPool::returned_count() const noexcept {
  std::uint64_t count = 0;
  for (const auto& heap : heaps_) {
    count += heap->returned_count();
  }
  return count;
}

bool MemoryPool::mark_tail() noexcept { return has_tail() && tail_.mark(stream_, returned_count()); }

void MemoryPool::keep_tail() noexcept {
  if (has_tail() && !tail_.is_marked(returned_count())) {
    static_cast<void>(mark_tail());  // else whoever takes memory from here waits for the device
  }
}

bool MemoryPool::wait(EventHandle event, Wait most) noexcept {
  // An event that cannot tell any more may have gone with its context: then the device has nothing left to do.
  return lanes_->events.wait(event) || (most == Wait::device && lanes_->events.wait_for_device());
}

bool MemoryPool::has_finished_stream(const TrimOptions& options) noexcept {
  StreamEvents& events = lanes_->events;
  if (!options.is_named && has_tail()) {
    const StreamTail::State state = tail_.over(returned_count(), options.most != Wait::nothing);
    // Busy after a wait: as where wait() fails.
    return state == StreamTail::State::over || (options.most == Wait::device && events.wait_for_device());
  }
  EventHandle event = kNoEvent;
  switch (events.record(stream_, event)) {
    case StreamEvents::Recorded::yes:
      break;
    case StreamEvents::Recorded::capturing:
    case StreamEvents::Recorded::not_now:
      return false;
    case StreamEvents::Recorded::failed:
      return options.most == Wait::device && events.wait_for_device();
  }
  const bool finished = options.most == Wait::nothing ? events.is_complete(event) : wait(event, options.most);
  events.recycle(event);
  return finished;
}

bool MemoryPool::take_fallback(const AllocationRequest& request, const Plan& plan, Allocation& allocation) noexcept {
  const auto take = [&] { return fallbacks_.take(allocation, request.alignment_bytes, plan.counted); };
  for (;;) {
    const std::uint64_t epoch = lanes_->pending.epoch();
    poll_pending(&stream_, true);
    if (take()) {
      return true;
    }
    if (!has_streams_) {
      return false;
    }
    for (const Wait most : {Wait::events, Wait::device}) {
      if ((complete_pending(Completion::awaited, most) && take()) || (settle_other_lanes(most) && take())) {
        return true;
      }
    }
    // Another thread may have had all that is pending in its hands meanwhile.
    if (!lanes_->pending.await_completions(epoch)) {
      return false;
    }
  }
}

}  // namespace tierpool
