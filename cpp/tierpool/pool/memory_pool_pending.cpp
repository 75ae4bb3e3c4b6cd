// Releases that streams may still have use of: kept until an event on each of them is complete.

#include <algorithm>
#include <new>
#include <utility>

#include "tierpool/pool/memory_pool.hpp"

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
  if (key_of(stream, key) != AllocationOutcome::served || key == stream_) {
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
  if (!has_streams_ || key_of(stream, key) != AllocationOutcome::served || key == stream_) {
    return release(allocation);
  }
  return release_behind(allocation, {&key, 1});
}

bool MemoryPool::release_behind(const Allocation& allocation, std::span<const StreamKey> streams) noexcept {
  if (!is_live(allocation)) {
    return false;
  }
  origins_.forget(allocation);
  late_ends_.fetch_add(1, std::memory_order_relaxed);
  std::unique_ptr<PendingRelease> pending = make_pending(allocation, streams);
  const bool is_over = pending != nullptr && is_complete(*pending);
  const bool was_deferred = pending != nullptr && !is_over && defer(allocation, std::move(pending));
  if (!is_over && !was_deferred) {
    static_cast<void>(lanes_->events.wait_for_device());
  }
  late_ends_.fetch_sub(1, std::memory_order_release);
  return was_deferred || end_release(allocation);
}

bool MemoryPool::needs_streams(const Allocation& allocation) noexcept {
  // A device takes memory back at once, whatever it still does there.
  return allocation.is_fallback() ? is_stream_ordered_ || recorded_.contains(allocation.address)
                                  : allocation.magazine == kManyStreams;
}

bool MemoryPool::release_in_order(const Allocation& allocation) noexcept {
  const bool is_kept = !allocation.is_fallback();  // by its lane, which hands it out in the order of its stream
  return release_behind(allocation, std::span(&stream_, is_kept || !is_stream_ordered_ ? 0 : 1));
}

std::unique_ptr<PendingRelease> MemoryPool::make_pending(const Allocation& allocation,
                                                         std::span<const StreamKey> streams) noexcept {
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
  for (PendingRelease::Use& use : pending->uses) {
    // Where that is impossible now, it is tried again when asked, and settled at last by a wait for the device.
    static_cast<void>(lanes_->events.record(use.stream, use.event));
  }
  pending->lane = this;
  pending->block_bytes = allocation.block_bytes;
  return pending;
}

bool MemoryPool::is_complete(PendingRelease& pending) noexcept {
  StreamEvents& events = lanes_->events;
  const auto is_over = [&events](const PendingRelease::Use& use) {
    return use.event != kNoEvent && events.is_complete(use.event);
  };
  const bool all_over = std::all_of(pending.uses.begin(), pending.uses.end(), is_over);
  if (all_over) {
    recycle_events(pending);
  }
  return all_over;
}

void MemoryPool::recycle_events(PendingRelease& pending) noexcept {
  for (PendingRelease::Use& use : pending.uses) {
    if (use.event != kNoEvent && !use.complete) {
      lanes_->events.recycle(use.event);
    }
  }
}

bool MemoryPool::defer(const Allocation& allocation, std::unique_ptr<PendingRelease> pending) noexcept {
  const std::lock_guard<PendingReleases> lock(lanes_->pending);
  if (is_closed() || !lanes_->pending.prepare(*pending) || !take_deferred(allocation, *pending)) {
    recycle_events(*pending);
    return false;
  }
  lanes_->pending.add(std::move(pending));
  return true;
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
void MemoryPool::take_back(const PendingRelease& release) noexcept {
  limit_.give_back(release.block_bytes);
  if (release.is_fallback()) {
    pending_fallback_bytes_ -= release.fallback.block_bytes;
    return;
  }
  ParkedTotals& pending = pending_[release.block.heap_index];
  --pending.count;
  pending.bytes -= release.block_bytes;
  heaps_[release.block.heap_index]->give_back({&release.block, 1});
}

bool MemoryPool::poll_pending() noexcept {
  if (lanes_->pending.count() == 0 || !lanes_->pending.try_lock()) {
    return false;
  }
  PendingRelease* complete = lanes_->pending.take_complete();
  for (const PendingRelease* release = complete; release != nullptr; release = release->next) {
    release->lane->take_back(*release);
  }
  const bool any = complete != nullptr;
  if (any) {
    lanes_->pending.note_completed();
  }
  lanes_->pending.unlock();
  free_fallbacks(complete);
  return any;
}

void MemoryPool::free_fallbacks(PendingRelease* releases) noexcept {
  while (releases != nullptr) {
    const std::unique_ptr<PendingRelease> release(releases);
    releases = release->next;
    if (release->is_fallback()) {
      const FallbackAllocations::Taken& taken = release->fallback;
      device_->free_direct(taken.address, taken.block_bytes, taken.alignment_bytes);
    }
  }
}

bool MemoryPool::complete(PendingRelease::Use& use, Completion completion) noexcept {
  StreamEvents& events = lanes_->events;
  if (use.event == kNoEvent && events.record(use.stream, use.event) != StreamEvents::Recorded::yes) {
    use.complete = completion == Completion::awaited && events.wait_for_device();
    return use.complete;
  }
  use.complete = completion == Completion::awaited ? events.wait(use.event) : events.order(stream_, use.event);
  if (use.complete) {
    events.recycle(use.event);
  }
  return use.complete;
}

bool MemoryPool::complete_pending(Completion completion) noexcept {
  PendingRelease* taken = nullptr;
  {
    const std::lock_guard<PendingReleases> lock(lanes_->pending);
    // What is only ordered behind its events may still be in use: a lane can hand it out, but no device may have it
    // back.
    taken = lanes_->pending.take_all_of(*this, completion != Completion::ordered);
    if (taken == nullptr) {
      return false;
    }
    lanes_->pending.begin_completion();
  }
  for (PendingRelease* release = taken; release != nullptr; release = release->next) {
    release->uses_left = 0;
    for (PendingRelease::Use& use : release->uses) {
      release->uses_left += use.complete || complete(use, completion) ? 0 : 1;
    }
  }
  PendingRelease* complete = nullptr;
  {
    const std::lock_guard<PendingReleases> lock(lanes_->pending);
    while (taken != nullptr) {
      PendingRelease* release = std::exchange(taken, taken->next);
      if (release->uses_left == 0) {
        take_back(*release);
        release->next = std::exchange(complete, release);
      } else if (lanes_->pending.prepare(*release)) {
        lanes_->pending.add(std::unique_ptr<PendingRelease>(release));
      }  // else its memory is lost: no room even to remember it, and to hand it out would corrupt it
    }
    if (complete != nullptr) {
      lanes_->pending.note_completed();
    }
  }
  lanes_->pending.end_completion();
  const bool any = complete != nullptr;
  free_fallbacks(complete);
  return any;
}

}  // namespace tierpool
