#pragma once

#include <cstdint>
#include <mutex>

#include "tierpool/pool/stream_events.hpp"
#include "tierpool/pool/stream_key.hpp"

namespace tierpool {

/// An event behind everything that a lane got back, marked whenever a caller names the lane's stream on a slow path: so
/// that whoever takes the lane's memory for others need not name a stream that may have been destroyed since. What
/// came back without its stream being named is not behind the event; the count of what came back tells.
///
/// Thread-safe; over() is called by one thread at a time. Nothing but the events is locked inside.
class StreamTail {
 public:
  /// The events outlive this object.
  explicit StreamTail(StreamEvents& events) noexcept : events_(events) {}
  ~StreamTail();
  StreamTail(const StreamTail&) = delete;
  StreamTail& operator=(const StreamTail&) = delete;

  /// Marks the present end of a stream that the caller names, behind all of the `returned` blocks that have come back
  /// by now. False when that is impossible.
  [[nodiscard]] bool mark(const StreamKey& stream, std::uint64_t returned) noexcept;
  /// Whether the event stands behind that many blocks.
  [[nodiscard]] bool is_marked(std::uint64_t returned) noexcept;

  enum class State { over, busy, unknown };
  /// Whether the stream has done with the `returned` blocks that have come back; unknown when not all of them are
  /// behind the event.
  [[nodiscard]] State over(std::uint64_t returned, bool may_wait) noexcept;

  /// Held over fork.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  StreamEvents& events_;
  std::mutex mutex_;              // guards all below
  EventHandle event_ = kNoEvent;  // kNoEvent: nothing is left to be done
  std::uint64_t returned_ = 0;
};

}  // namespace tierpool
