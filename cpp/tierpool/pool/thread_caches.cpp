#include "tierpool/pool/thread_caches.hpp"

#include <algorithm>
#include <new>
#include <numeric>
#include <utility>

#include "tierpool/base/fork_handler.hpp"

namespace tierpool {
namespace {

/// Every pool's caches by id, for threads that end: they may have outlived the pools they used.
struct Directory {
  std::mutex mutex;
  std::vector<std::pair<std::uint64_t, ThreadCaches*>> entries;
  std::uint64_t next_id = 1;
  ForkHandler fork_handler{ForkHandler::Rank::directory, [this] { mutex.lock(); }, [this] { mutex.unlock(); }};

  [[nodiscard]] ThreadCaches* find(std::uint64_t id) {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [id](const auto& entry) { return entry.first == id; });
    return found == entries.end() ? nullptr : found->second;
  }
};

// Leaked on purpose: threads may end after static destruction.
Directory& directory() {
  static auto* instance = new Directory;
  return *instance;
}

std::uint64_t new_id() {
  const std::lock_guard<std::mutex> lock(directory().mutex);
  return directory().next_id++;
}

}  // namespace

/// Lives as long as its thread and gives back what the thread has parked in any pool.
class ThreadEnd {
 public:
  ThreadEnd() = default;
  ThreadEnd(const ThreadEnd&) = delete;
  ThreadEnd& operator=(const ThreadEnd&) = delete;
  ~ThreadEnd() {
    ThreadCaches::last_used = {ThreadCaches::kThreadEnded, nullptr};
    for (const auto& [id, cache] : caches_) {
      const std::lock_guard<std::mutex> lock(directory().mutex);  // the pool cannot end meanwhile
      if (ThreadCaches* caches = directory().find(id)) {
        const std::lock_guard<std::mutex> caches_lock(caches->mutex_);
        caches->retire(cache);
        caches->share_limit();
      }
    }
  }

  [[nodiscard]] ThreadCache* find(std::uint64_t id) const noexcept {
    const auto found =
        std::find_if(caches_.begin(), caches_.end(), [id](const auto& entry) { return entry.first == id; });
    return found == caches_.end() ? nullptr : found->second;
  }
  void add(std::uint64_t id, ThreadCache* cache) noexcept { caches_.emplace_back(id, cache); }
  /// Forgets pools that have ended and makes room for one more, so that add() cannot fail.
  void prepare_add() {
    const std::lock_guard<std::mutex> lock(directory().mutex);
    std::erase_if(caches_, [](const auto& entry) { return directory().find(entry.first) == nullptr; });
    caches_.reserve(caches_.size() + 1);
  }

 private:
  std::vector<std::pair<std::uint64_t, ThreadCache*>> caches_;
};

namespace {

thread_local ThreadEnd thread_end;

}  // namespace

thread_local constinit ThreadCaches::Current ThreadCaches::last_used = {kNoPool, nullptr};

ThreadCaches::ThreadCaches(const MagazineLayout& layout, const MagazineLimits& limits, std::size_t heap_count,
                           ThreadCache::GiveBack give_back)
    : id_(new_id()),
      layout_(layout),
      limits_(limits),
      heap_count_(heap_count),
      give_back_(std::move(give_back)),
      retired_counters_(heap_count) {
  const std::lock_guard<std::mutex> lock(directory().mutex);
  directory().entries.emplace_back(id_, this);
}

ThreadCaches::~ThreadCaches() {
  const std::lock_guard<std::mutex> lock(directory().mutex);
  std::erase_if(directory().entries, [this](const auto& entry) { return entry.second == this; });
}

ThreadCache* ThreadCaches::find_or_add_current() noexcept {
  if (last_used.id == kThreadEnded) {
    return nullptr;  // a destructor that runs behind the thread's own end
  }
  ThreadCache* cache = thread_end.find(id_);
  if (cache == nullptr) {
    try {
      cache = add_current();
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  last_used = {id_, cache};
  return cache;
}

ThreadCache* ThreadCaches::add_current() {
  thread_end.prepare_add();
  const std::uint32_t lane = next_lane_.fetch_add(1, std::memory_order_relaxed);
  auto cache = std::make_unique<ThreadCache>(layout_, heap_count_, lane, give_back_);
  ThreadCache* added = cache.get();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    caches_.push_back(std::move(cache));
    share_limit();
  }
  thread_end.add(id_, added);
  return added;
}

void ThreadCaches::share_limit() noexcept {
  const std::uint64_t share = limits_.total_bytes / std::max<std::size_t>(caches_.size(), 1);
  stop_all();  // none may be growing towards its former share
  for (const auto& cache : caches_) {
    cache->set_max_bytes(enabled_ ? std::min(limits_.thread_bytes, share) : 0);
    if (cache->is_over_limit()) {
      cache->flush();
    }
  }
  resume_all();
}

void ThreadCaches::retire(const ThreadCache* cache) noexcept {
  const auto found =
      std::find_if(caches_.begin(), caches_.end(), [cache](const auto& entry) { return entry.get() == cache; });
  if (found == caches_.end()) {
    return;
  }
  (*found)->flush();
  for (std::size_t heap = 0; heap < heap_count_; ++heap) {
    retired_counters_[heap].add((*found)->counters()[heap]);
  }
  caches_.erase(found);
}

void ThreadCaches::stop_all() noexcept {
  for (const auto& cache : caches_) {
    cache->lock.announce();
  }
  if (!caches_.empty()) {
    OwnerLock::interrupt_owners();
  }
  for (const auto& cache : caches_) {
    cache->lock.settle();
  }
}

void ThreadCaches::resume_all() noexcept {
  for (const auto& cache : caches_) {
    cache->lock.unclaim();
  }
}

std::size_t ThreadCaches::flush() noexcept {
  const Standstill standstill(*this);
  const auto add_flushed = [](std::size_t sum, const auto& cache) { return sum + cache->flush(); };
  const std::size_t count = std::accumulate(caches_.begin(), caches_.end(), std::size_t{0}, add_flushed);
  may_hold_blocks_.store(false, std::memory_order_release);  // whoever sees it also sees the blocks in their heaps
  return count;
}

void ThreadCaches::disable() noexcept {
  const Standstill standstill(*this);
  enabled_ = false;
  for (const auto& cache : caches_) {
    cache->set_max_bytes(0);
    cache->flush();
  }
  may_hold_blocks_.store(false, std::memory_order_relaxed);
}

ThreadCaches::Standstill::Standstill(ThreadCaches& caches) noexcept : caches_(caches) {
  caches_.mutex_.lock();
  caches_.stop_all();
}

ThreadCaches::Standstill::~Standstill() {
  caches_.resume_all();
  caches_.mutex_.unlock();
}

std::vector<EventCounters> ThreadCaches::Standstill::counters() const {
  std::vector<EventCounters> sums = caches_.retired_counters_;
  for (const auto& cache : caches_.caches_) {
    for (std::size_t heap = 0; heap < sums.size(); ++heap) {
      sums[heap].add(cache->counters()[heap]);
    }
  }
  return sums;
}

std::vector<ParkedTotals> ThreadCaches::Standstill::parked() const {
  std::vector<ParkedTotals> totals(caches_.heap_count_);
  for (const auto& cache : caches_.caches_) {
    cache->add_parked(totals);
  }
  return totals;
}

void ThreadCaches::Standstill::forget_largest_requests() const noexcept {
  for (EventCounters& counters : caches_.retired_counters_) {
    counters.largest_request_bytes = 0;
  }
  for (const auto& cache : caches_.caches_) {
    cache->forget_largest_requests();
  }
}

void ThreadCaches::before_fork() {
  mutex_.lock();
  stop_all();
}

void ThreadCaches::after_fork_in_parent() {
  resume_all();
  mutex_.unlock();
}

void ThreadCaches::after_fork_in_child() {
  resume_all();
  const ThreadCache* survivor = thread_end.find(id_);
  for (std::size_t i = caches_.size(); i-- > 0;) {
    if (caches_[i].get() != survivor) {
      retire(caches_[i].get());
    }
  }
  share_limit();  // only now: a thread that did not come along may be inside its lock for ever
  mutex_.unlock();
}

}  // namespace tierpool
