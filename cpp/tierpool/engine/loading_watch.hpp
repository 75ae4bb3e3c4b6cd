#pragma once

#include <cstdint>
#include <mutex>

#include "tierpool/storage/direct_reader.hpp"

namespace tierpool {

struct LoadingProgress {
  std::uint64_t read_bytes = 0;
  std::uint64_t total_bytes = 0;  ///< to be read; 0 while that is not known
};

/// Follows the loading of one model on another thread, and may end it. Thread-safe; outlives the loading.
class LoadingWatch {
 public:
  LoadingWatch() = default;
  ~LoadingWatch() = default;
  LoadingWatch(const LoadingWatch&) = delete;
  LoadingWatch& operator=(const LoadingWatch&) = delete;

  /// The loading throws CancelledError, as soon as the pieces have arrived that are being read. Nothing happens to a
  /// model that is loaded.
  void cancel() noexcept;
  [[nodiscard]] bool is_cancelled() const;
  [[nodiscard]] LoadingProgress progress() const;

 private:
  friend class WatchedLoading;
  [[nodiscard]] LoadingProgress count() const;  // expects mutex_ to be held

  mutable std::mutex mutex_;  // guards all below
  bool is_cancelled_ = false;
  DirectReader* reader_ = nullptr;  // while a model is being loaded with it
  LoadingProgress last_;
};

/// A loading that is under way; for the thread that loads.
class WatchedLoading {
 public:
  /// `watch` may be null, for nobody. The reader outlives the loading.
  WatchedLoading(LoadingWatch* watch, DirectReader& reader, std::uint64_t total_bytes);
  ~WatchedLoading();
  WatchedLoading(const WatchedLoading&) = delete;
  WatchedLoading& operator=(const WatchedLoading&) = delete;

  /// Throws CancelledError after LoadingWatch::cancel().
  void require_wanted() const;
  /// The same, and otherwise cancelling does nothing from now on.
  void finish();

 private:
  LoadingWatch* const watch_;
};

}  // namespace tierpool
