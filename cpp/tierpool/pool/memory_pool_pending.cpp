// Releases that streams may still have use of: kept until an event on each of them is complete.

#include <algorithm>
#include <new>
#include <utility>

#include "tierpool/pool/memory_pool_hot_path.hpp"

namespace tierpool {

bool MemoryPool::is_live(const Allocation& allocation) const noexcept {
  if (allocation.is_fallback()) {
    return fallbacks_.is_live(allocation);
  }
  return allocation.heap_index < heap_count_ && heaps_[allocation.heap_index]->is_live(allocation);
}

bool MemoryPool::record_stream(Allocation& allocation, StreamHandle stream) noexcept {
  StreamKey key;
  if (!is_live(allocation)) {
    return false;
  }
  if (!has_streams_ || key_of(stream, key) != AllocationOutcome::served || key == stream_) {
    return true;
  }
  // Where it could not be remembered, the release finds nothing recorded and waits for the whole device.
  static_cast<void>(recorded_.add(allocation.address, key));
  if (!allocation.is_fallback()) {
    allocation.generation = heaps_[allocation.heap_index]->renew(allocation);
    allocation.magazine = kManyStreams;
  }
  return true;
}

bool MemoryPool::release(const Allocation& allocation, StreamHandle stream) noexcept {
  StreamKey key;
  if (!has_streams_ || key_of(stream, key) != AllocationOutcome::served) {
    return release(allocation);
  }
  return key == stream_ ? release_on_lane(allocation) : release_behind(allocation, {&key, 1}, true);
}

bool MemoryPool::release_on_lane(const Allocation& allocation) noexcept {
  if (stream_.handle <= kLegacyStream) {
    return release(allocation);  // never captured, and lasting
  }
  if (device_->streams()->is_capturing(stream_.handle)) {
    return release_behind(allocation, {&stream_, 1}, true);
  }
  const bool parked = allocation.holder == Holder::buffer ? release_to_magazine<Holder::buffer>(allocation)
                                                          : release_to_magazine<Holder::array>(allocation);
  return parked || release_slowly(allocation, true);
}

bool MemoryPool::release_behind(const Allocation& allocation, std::span<const StreamKey> streams,
                                bool are_named) noexcept {
  if (!is_live(allocation)) {
    return false;
  }
  origins_.forget(allocation);
  late_ends_.fetch_add(1, std::memory_order_relaxed);
  std::unique_ptr<PendingRelease> pending = make_pending(allocation, streams, are_named);
  const bool was_remembered = pending != nullptr;
  bool is_over = was_remembered && is_complete(*pending);
  if (was_remembered && !is_over) {
    pending = defer(allocation, std::move(pending));
  }
  const bool was_deferred = was_remembered && pending == nullptr;
  bool is_kept = false;
  if (!is_over && !was_deferred) {
    is_over = pending == nullptr
                  ? lanes_->events.wait_for_device()
                  : !pending->is_captured() && (await_events(*pending) || lanes_->events.wait_for_device());
    is_kept = !is_over;
  }
  if (is_kept) {
    keep(allocation, std::move(pending));
  } else if (pending != nullptr) {
    recycle_events(*pending);
  }
  const bool is_lost = is_kept && is_closed();
  late_ends_.fetch_sub(1, std::memory_order_release);
  if (is_lost) {
    PoolLog::memory_kept(allocation.block_bytes);
  }
  return was_deferred || is_kept || end_release(allocation);
}

bool MemoryPool::needs_streams(const Allocation& allocation) noexcept {
  // A device takes memory back at once, whatever it still does there.
  return allocation.is_fallback() ? is_stream_ordered_ || recorded_.contains(allocation.address)
                                  : allocation.magazine == kManyStreams;
}

bool MemoryPool::release_in_order(const Allocation& allocation, bool is_named) noexcept {
  const bool is_kept = !allocation.is_fallback();  // by its lane, which hands it out in the order of its stream
  return release_behind(allocation, std::span(&stream_, is_kept || !is_stream_ordered_ ? 0 : 1), is_named);
}

std::unique_ptr<PendingRelease> MemoryPool::make_pending(const Allocation& allocation,
                                                         std::span<const StreamKey> streams, bool are_named) noexcept {
  auto pending = std::unique_ptr<PendingRelease>(new (std::nothrow) PendingRelease);
  if (pending == nullptr) {
    return nullptr;
  }
  try {
    for (const StreamKey& stream : streams) {
      pending->uses.push_back({.stream = stream});
    }
    const bool was_recorded = allocation.magazine == kManyStreams || allocation.is_fallback();
    for (const StreamKey& stream : was_recorded ? recorded_.take(allocation.address) : std::vector<StreamKey>{}) {
      pending->uses.push_back({.stream = stream});
    }
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  if (pending->uses.empty()) {
    return nullptr;  // recorded, but there was no memory to remember it
  }
  // Where that is impossible now, it is made up for when the stream is named again, or by a wait for the device.
  for (std::size_t index = 0; index < pending->uses.size(); ++index) {
    PendingRelease::Use& use = pending->uses[index];
    // A stream that was recorded lives until here, as whoever recorded it has promised.
    if (are_named || index >= streams.size() || use.stream.is_lasting()) {
      record(use);
    }
  }
  pending->names_last_use = !streams.empty();
  pending->lane = this;
  pending->block_bytes = allocation.block_bytes;
  return pending;
}

void MemoryPool::record(PendingRelease::Use& use) noexcept {
  use.captured = lanes_->events.record(use.stream, use.event) == StreamEvents::Recorded::capturing;
}

bool MemoryPool::is_complete(PendingRelease& pending) noexcept {
  StreamEvents& events = lanes_->events;
  const auto is_over = [&events](const PendingRelease::Use& use) {
    return use.event != kNoEvent && events.is_complete(use.event);
  };
  return std::all_of(pending.uses.begin(), pending.uses.end(), is_over);
}

bool MemoryPool::await_events(const PendingRelease& pending) noexcept {
  const auto is_over = [this](const PendingRelease::Use& use) {
    return use.event != kNoEvent && lanes_->events.wait(use.event);
  };
  return std::all_of(pending.uses.begin(), pending.uses.end(), is_over);
}

void MemoryPool::recycle_events(PendingRelease& pending) noexcept {
  for (PendingRelease::Use& use : pending.uses) {
    if (use.event != kNoEvent && !use.complete) {
      lanes_->events.recycle(use.event);
    }
  }
}

std::unique_ptr<PendingRelease> MemoryPool::defer(const Allocation& allocation,
                                                  std::unique_ptr<PendingRelease> pending) noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  if (is_closed() || pending->is_captured() || !lanes_->pending.prepare(*pending) ||
      !take_deferred(allocation, *pending)) {
    return pending;
  }
  lanes_->pending.add(std::move(pending));
  return nullptr;
}

void MemoryPool::keep(const Allocation& allocation, std::unique_ptr<PendingRelease> pending) noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  PendingRelease forgotten;
  if (pending == nullptr) {
    forgotten.block_bytes = allocation.block_bytes;
    static_cast<void>(take_deferred(allocation, forgotten));
  } else if (take_deferred(allocation, *pending)) {
    lanes_->pending.keep(std::move(pending));
  }
}

std::uint64_t MemoryPool::pending_bytes() const noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  std::uint64_t bytes = pending_fallback_bytes_;
  for (const ParkedTotals& pending : pending_) {
    bytes += pending.bytes;
  }
  return bytes;
}

bool MemoryPool::take_deferred(const Allocation& allocation, PendingRelease& pending) noexcept {
  if (allocation.is_fallback()) {
    pending.fallback = fallbacks_.defer(allocation);
    pending_fallback_bytes_ += pending.fallback.block_bytes;
    return pending.is_fallback();
  }
  const std::optional<ParkedBlock> block = heaps_[allocation.heap_index]->defer(allocation);
  if (block) {
    pending.block = *block;
    ++pending_[block->heap_index].count;
    pending_[block->heap_index].bytes += pending.block_bytes;
  }
  return block.has_value();
}

// With the lock of the pending releases held, so that statistics find every block in one place.
void MemoryPool::take_back(const PendingRelease& release, bool uses_are_over) noexcept {
  limit_.give_back(release.block_bytes);
  if (release.is_fallback()) {
    pending_fallback_bytes_ -= release.fallback.block_bytes;
    return;
  }
  ParkedTotals& pending = pending_[release.block.heap_index];
  --pending.count;
  pending.bytes -= release.block_bytes;
  heaps_[release.block.heap_index]->give_back({&release.block, 1}, release.names_last_use && uses_are_over);
}

bool MemoryPool::poll_pending() noexcept { return poll_pending(nullptr, true) == Polled::came_back; }

MemoryPool::Polled MemoryPool::poll_pending(const StreamKey* named, bool may_block) noexcept {
  if (lanes_->pending.count() == 0 || !lanes_->pending.try_lock()) {
    return Polled::nothing;
  }
  // Before the count falls, so that whoever sees it fall knows of it; ends when the device has its part too.
  lanes_->pending.begin_completion();
  const auto [complete, left_fallback] = lanes_->pending.take_complete(named, may_block);
  for (const PendingRelease* release = complete; release != nullptr; release = release->next) {
    release->lane->take_back(*release, true);
  }
  const bool any = complete != nullptr;
  if (!any) {
    lanes_->pending.end_completion();
  }
  lanes_->pending.unlock();
  if (any) {
    free_fallbacks(complete);
    lanes_->pending.note_completed();
    lanes_->pending.end_completion();
  }
  if (left_fallback) {
    return Polled::must_block;
  }
  return any ? Polled::came_back : Polled::nothing;
}

void MemoryPool::free_fallbacks(PendingRelease* releases) noexcept {
  while (releases != nullptr) {
    const std::unique_ptr<PendingRelease> release(releases);
    releases = release->next;
    if (release->is_fallback()) {
      fallbacks_.free(release->fallback);
    }
  }
}

bool MemoryPool::complete(PendingRelease::Use& use, Completion completion, Wait most) noexcept {
  StreamEvents& events = lanes_->events;
  const bool is_lane_named = completion == Completion::ordered || completion == Completion::awaited;
  if (use.event == kNoEvent && !use.captured && (use.stream.is_lasting() || (is_lane_named && use.stream == stream_))) {
    switch (events.record(use.stream, use.event)) {
      case StreamEvents::Recorded::capturing:
      case StreamEvents::Recorded::not_now:
        return false;  // to wait for the device would invalidate the capture
      case StreamEvents::Recorded::yes:
      case StreamEvents::Recorded::failed:
        break;
    }
  }
  if (use.event == kNoEvent) {
    use.complete = completion != Completion::ordered && most == Wait::device && events.wait_for_device();
    return use.complete;
  }
  use.complete = completion == Completion::ordered ? events.order(stream_, use.event) : wait(use.event, most);
  if (use.complete) {
    events.recycle(use.event);
  }
  return use.complete;
}

PendingRelease* MemoryPool::take_pending(Completion completion) noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  lanes_->pending.begin_completion();  // before the count falls, as in poll_pending()
  // What is only ordered behind its events may still be in use: a lane can hand it out, but no device may have it back.
  PendingRelease* taken = lanes_->pending.take_all_of(*this, completion != Completion::ordered);
  if (completion == Completion::closing) {
    taken = lanes_->pending.take_kept_of(*this, taken);
  }
  return taken;
}

PendingRelease* MemoryPool::put_back(PendingRelease* taken, Completion completion) noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  PendingRelease* complete = nullptr;
  while (taken != nullptr) {
    PendingRelease* release = std::exchange(taken, taken->next);
    if (release->uses_left == 0) {
      take_back(*release, completion != Completion::ordered);
      release->next = std::exchange(complete, release);
    } else if (release->is_captured() || !lanes_->pending.prepare(*release)) {
      lanes_->pending.keep(std::unique_ptr<PendingRelease>(release));
    } else {
      lanes_->pending.add(std::unique_ptr<PendingRelease>(release));
    }
  }
  return complete;
}

bool MemoryPool::complete_pending(Completion completion, Wait most) noexcept {
  if (lanes_->pending.count() == 0 && completion != Completion::closing) {
    return false;
  }
  PendingRelease* taken = take_pending(completion);
  for (PendingRelease* release = taken; release != nullptr; release = release->next) {
    release->uses_left = 0;
    // A use that this lane was put behind is over for this lane only, also if the rest has to wait for another time.
    release->names_last_use = release->names_last_use && completion != Completion::ordered;
    for (PendingRelease::Use& use : release->uses) {
      release->uses_left += use.complete || complete(use, completion, most) ? 0 : 1;
    }
  }
  PendingRelease* complete = put_back(taken, completion);
  const bool any = complete != nullptr;
  free_fallbacks(complete);
  if (any) {
    lanes_->pending.note_completed();
  }
  lanes_->pending.end_completion();
  return any;
}

}  // namespace tierpool
