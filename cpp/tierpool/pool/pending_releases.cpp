#include "tierpool/pool/pending_releases.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace tierpool {

PendingReleases::~PendingReleases() {
  while (kept_ != nullptr) {
    const std::unique_ptr<PendingRelease> release(std::exchange(kept_, kept_->next));
    for (const PendingRelease::Use& use : release->uses) {
      if (use.event != kNoEvent && !use.complete) {
        events_.recycle(use.event);
      }
    }
  }
}

PendingReleases::Queue* PendingReleases::find(const PendingRelease::Use& use) noexcept {
  const auto found = std::find_if(queues_.begin(), queues_.end(), [&use](const Queue& queue) {
    return queue.stream == use.stream && queue.has_events == (use.event != kNoEvent);
  });
  return found == queues_.end() ? nullptr : &*found;
}

bool PendingReleases::prepare(const PendingRelease& release) noexcept {
  try {
    for (const PendingRelease::Use& use : release.uses) {
      if (find(use) == nullptr) {
        queues_.push_back({use.stream, use.event != kNoEvent});
      }
    }
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void PendingReleases::add(std::unique_ptr<PendingRelease> release) noexcept {
  PendingRelease* added = release.release();
  added->uses_left = 0;
  added->next = nullptr;
  for (PendingRelease::Use& use : added->uses) {
    if (use.complete) {
      continue;
    }
    use.release = added;
    use.next = nullptr;
    Queue& queue = *find(use);
    (queue.first == nullptr ? queue.first : queue.last->next) = &use;
    queue.last = &use;
    ++added->uses_left;
  }
  count_.fetch_add(1, std::memory_order_release);
}

void PendingReleases::keep(std::unique_ptr<PendingRelease> release) noexcept {
  release->next = kept_;
  kept_ = release.release();
}

bool PendingReleases::is_complete(PendingRelease::Use& use, const StreamKey* named) noexcept {
  if (use.event == kNoEvent) {
    const bool may_name = use.stream.is_lasting() || (named != nullptr && use.stream == *named);
    if (!may_name || events_.record(use.stream, use.event) != StreamEvents::Recorded::yes) {
      return false;
    }
  }
  return events_.is_complete(use.event);
}

PendingReleases::Complete PendingReleases::take_complete(const StreamKey* named, bool with_fallbacks) noexcept {
  Complete complete;
  for (Queue& queue : queues_) {
    while (queue.first != nullptr && is_complete(*queue.first, named)) {
      PendingRelease::Use& use = *queue.first;
      if (!with_fallbacks && use.release->is_fallback() && use.release->uses_left == 1) {
        complete.left_fallback = true;
        break;
      }
      queue.first = use.next;
      events_.recycle(use.event);
      use.complete = true;
      if (--use.release->uses_left == 0) {
        use.release->next = complete.first;
        complete.first = use.release;
        count_.fetch_sub(1, std::memory_order_release);
      }
    }
  }
  std::erase_if(queues_, [](const Queue& queue) { return queue.first == nullptr; });
  return complete;
}

void PendingReleases::end_completion() noexcept {
  completing_.fetch_sub(1, std::memory_order_acq_rel);
  completions_ended_.fetch_add(1, std::memory_order_acq_rel);
  completions_ended_.notify_all();
}

bool PendingReleases::await_completions(std::uint64_t epoch) noexcept {
  for (;;) {
    const std::uint32_t ended = completions_ended_.load(std::memory_order_acquire);
    {
      const std::lock_guard<std::mutex> lock(mutex_);  // under which completions begin
      if (this->epoch() != epoch || !is_completing()) {
        return this->epoch() != epoch;
      }
    }
    completions_ended_.wait(ended, std::memory_order_acquire);
  }
}

PendingRelease* PendingReleases::take_all_of(const MemoryPool& lane, bool with_fallbacks) noexcept {
  PendingRelease* taken = nullptr;
  for (Queue& queue : queues_) {
    PendingRelease::Use* use = queue.first;
    queue.first = queue.last = nullptr;
    while (use != nullptr) {
      PendingRelease::Use* next = use->next;
      if (use->release->lane == &lane && (with_fallbacks || !use->release->is_fallback())) {
        // Uses already complete are no longer listed: what is left has this many.
        if (--use->release->uses_left == 0) {
          use->release->next = taken;
          taken = use->release;
          count_.fetch_sub(1, std::memory_order_release);
        }
      } else {
        use->next = nullptr;
        (queue.first == nullptr ? queue.first : queue.last->next) = use;
        queue.last = use;
      }
      use = next;
    }
  }
  std::erase_if(queues_, [](const Queue& queue) { return queue.first == nullptr; });
  return taken;
}

PendingRelease* PendingReleases::take_kept_of(const MemoryPool& lane, PendingRelease* list) noexcept {
  PendingRelease** link = &kept_;
  while (*link != nullptr) {
    PendingRelease* release = *link;
    if (release->lane == &lane) {
      *link = std::exchange(release->next, list);
      list = release;
    } else {
      link = &release->next;
    }
  }
  return list;
}

}  // namespace tierpool
