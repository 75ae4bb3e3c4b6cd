#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/stream_key.hpp"

namespace tierpool {

/// Events on the streams of a device, used again and again: making one costs more than recording it. Thread-safe.
/// For a device without streams, nothing but the constructor may be called.
class StreamEvents {
 public:
  /// The streams outlive this object.
  explicit StreamEvents(DeviceStreams* streams) noexcept : streams_(streams) {}
  ~StreamEvents();
  StreamEvents(const StreamEvents&) = delete;
  StreamEvents& operator=(const StreamEvents&) = delete;

  enum class Recorded {
    yes,
    capturing,  ///< the stream's work goes into a graph, whose launches no event tells
    not_now,    ///< the capture of another stream forbids it
    failed
  };
  /// Marks the present end of a stream's work by an event, to be recycled. The stream has to be one that the caller
  /// names or a lasting one: the handle of a destroyed stream must not be used. Fails where the handle means another
  /// stream than the key: one that was made since, or this thread's default stream instead of another thread's.
  [[nodiscard]] Recorded record(const StreamKey& stream, EventHandle& event) noexcept;
  [[nodiscard]] bool is_complete(EventHandle event) noexcept;
  /// Blocks until the event is complete. False when that can never be known.
  [[nodiscard]] bool wait(EventHandle event) noexcept { return streams_->synchronize_event(event); }
  /// Lets the later work of a stream, named as for record(), begin when the event is complete; blocks no one. False
  /// when the device refuses.
  [[nodiscard]] bool order(const StreamKey& later, EventHandle event) noexcept;
  /// Blocks until the device has nothing left to do. False when that cannot be known: then no memory may be taken for
  /// unused.
  [[nodiscard]] bool wait_for_device() noexcept { return streams_->synchronize_device(); }
  void recycle(EventHandle event) noexcept;
  /// Whether a handle means the same stream here and now as it did where the key was made.
  [[nodiscard]] bool is_reachable(const StreamKey& stream) noexcept;

 private:
  [[nodiscard]] EventHandle take() noexcept;

  DeviceStreams* const streams_;
  std::mutex mutex_;
  std::vector<EventHandle> spare_;
  // As a device's: nothing else is locked while this is.
  ForkHandler fork_handler_{ForkHandler::Rank::device, [this] { mutex_.lock(); }, [this] { mutex_.unlock(); }};
};

}  // namespace tierpool
