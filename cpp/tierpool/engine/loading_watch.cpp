#include "tierpool/engine/loading_watch.hpp"

#include <algorithm>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr const char* kCancelled = "The loading was cancelled";

}  // namespace

void LoadingWatch::cancel() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_cancelled_ = true;
  if (reader_ != nullptr) {
    reader_->cancel_all();
  }
}

bool LoadingWatch::is_cancelled() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return is_cancelled_;
}

LoadingProgress LoadingWatch::progress() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return count();
}

LoadingProgress LoadingWatch::count() const {
  if (reader_ == nullptr) {
    return last_;
  }
  // What is read ahead for the first forward is nothing that loading waits for.
  return {std::min(reader_->statistics().read_bytes, last_.total_bytes), last_.total_bytes};
}

WatchedLoading::WatchedLoading(LoadingWatch* watch, DirectReader& reader, std::uint64_t total_bytes) : watch_(watch) {
  if (watch_ != nullptr) {
    const std::lock_guard<std::mutex> lock(watch_->mutex_);
    watch_->reader_ = &reader;
    watch_->last_.total_bytes = total_bytes;
  }
}

WatchedLoading::~WatchedLoading() {
  if (watch_ != nullptr) {
    const std::lock_guard<std::mutex> lock(watch_->mutex_);
    watch_->last_ = watch_->count();
    watch_->reader_ = nullptr;
  }
}

void WatchedLoading::require_wanted() const {
  if (watch_ != nullptr && watch_->is_cancelled()) {
    throw CancelledError(kCancelled);
  }
}

void WatchedLoading::finish() {
  if (watch_ == nullptr) {
    return;
  }
  const std::lock_guard<std::mutex> lock(watch_->mutex_);
  if (watch_->is_cancelled_) {
    throw CancelledError(kCancelled);  // the reader reads nothing any more
  }
  watch_->last_.read_bytes = watch_->last_.total_bytes;
  watch_->reader_ = nullptr;
}

}  // namespace tierpool
