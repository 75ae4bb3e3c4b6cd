#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/failure_orders.hpp"
#include "tierpool/device/stream.hpp"

namespace tierpool {

/// The stream calls that can be made to fail.
enum class StreamCall { create_event, record_event, query_event, wait_event, synchronize, copy_async };

/// Streams as queues that stand still until a test advances them, one operation at a time and in any interleaving: so
/// that every order a device may run its work in can be tried.
///
/// The synchronize_ calls run what they wait for, as a device would, and say false to a deadlock. The default stream is
/// ordered with no other. A call that no real device would survive (an unknown event or stream, a question about an
/// event of a capture, a wait for the device during one) is counted in misuse_count() and refused. Thread-safe; work
/// runs on the thread that advances its stream, without a lock, and may use the device but not advance streams.
class SimulatedStreams final : public DeviceStreams {
 public:
  using Work = std::function<void()>;
  /// What a copy does when its turn comes.
  using Copy = std::function<void(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes)>;

  explicit SimulatedStreams(Copy copy = {});

  void require_stream(StreamHandle stream) override;
  [[nodiscard]] std::uint64_t stream_id(StreamHandle stream) noexcept override;
  [[nodiscard]] bool is_capturing(StreamHandle stream) noexcept override;
  [[nodiscard]] EventHandle create_event() noexcept override;
  void destroy_event(EventHandle event) noexcept override;
  [[nodiscard]] bool record_event(EventHandle event, StreamHandle stream) noexcept override;
  [[nodiscard]] EventState query_event(EventHandle event) noexcept override;
  [[nodiscard]] bool wait_event(StreamHandle stream, EventHandle event) noexcept override;
  [[nodiscard]] bool synchronize_event(EventHandle event) noexcept override;
  [[nodiscard]] bool synchronize_stream(StreamHandle stream) noexcept override;
  [[nodiscard]] bool synchronize_device() noexcept override;
  void copy_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes, StreamHandle stream) override;

  /// A handle is used again once its stream was destroyed, as drivers do; its id is not.
  [[nodiscard]] StreamHandle create_stream();
  /// What was given to it still runs, by advance_any().
  void destroy_stream(StreamHandle stream);
  /// Gives work to a stream, as launching a kernel does. During a capture it is dropped.
  void enqueue(StreamHandle stream, Work work);
  /// Runs the stream's next operation. False when there is none, or it waits for another stream.
  bool advance(StreamHandle stream);
  /// advance() for the first stream that can, beginning the search at the `turn`-th.
  bool advance_any(std::uint64_t turn = 0);
  void begin_capture(StreamHandle stream);
  void end_capture(StreamHandle stream);

  /// The next `after` calls of this kind work, the `times` calls behind them fail and change nothing.
  void fail(StreamCall call, std::uint64_t after = 0, std::uint64_t times = UINT64_MAX);
  void recover();

  /// Operations not yet run, of all streams.
  [[nodiscard]] std::uint64_t queued_count() const;
  /// Events created and not destroyed.
  [[nodiscard]] std::uint64_t event_count() const;
  /// Calls of this kind so far, failed ones included.
  [[nodiscard]] std::uint64_t call_count(StreamCall call) const;
  [[nodiscard]] std::uint64_t misuse_count() const;

 private:
  /// One recording of an event: waits that were given before it is recorded again still mean this one.
  struct Recording {
    EventHandle event = kNoEvent;
    std::uint64_t number = 0;
  };
  struct Operation {
    Work work;
    std::optional<Recording> completes;
    std::optional<Recording> waits_for;
  };
  struct Stream {
    std::uint64_t id = 0;
    StreamHandle handle = kDefaultStream;
    std::deque<Operation> operations;
    bool destroyed = false;
    bool capturing = false;
    bool advancing = false;  // an operation of it runs: the next one has to wait
  };
  struct Event {
    std::uint64_t recorded = 0;
    std::set<std::uint64_t> open;  // recordings not complete: later ones, on other streams, may be before earlier ones
    bool captured = false;
    bool destroyed = false;
  };

  // All of these expect mutex_ to be held.
  [[nodiscard]] Stream* find(StreamHandle stream);
  [[nodiscard]] Event* find_event(EventHandle event) noexcept;
  [[nodiscard]] bool is_complete(const Recording& recording) const noexcept;
  [[nodiscard]] bool can_advance(const Stream& stream) const noexcept;
  [[nodiscard]] std::uint64_t add_stream(StreamHandle handle);
  void complete(const Operation& operation);
  /// Runs the next operation of a stream that can advance, with the lock let go meanwhile.
  void run_next(std::unique_lock<std::mutex>& lock, Stream& stream);
  [[nodiscard]] bool run_any(std::unique_lock<std::mutex>& lock, std::uint64_t turn);
  /// Advances streams until `done`; false when none can go on.
  template <typename Done>
  [[nodiscard]] bool run_until(std::unique_lock<std::mutex>& lock, Done done);

  const Copy copy_;
  mutable std::mutex mutex_;
  std::condition_variable advanced_;
  std::map<std::uint64_t, Stream> streams_;  // by id
  std::map<EventHandle, Event> events_;
  std::map<std::uint64_t, std::uint64_t> thread_stream_ids_;  // by thread number
  std::uint64_t next_stream_id_ = 0;
  EventHandle next_event_ = 0xe000;
  std::uint64_t misuse_count_ = 0;
  FailureOrders<StreamCall, 6> calls_;
  ForkHandler fork_handler_{ForkHandler::Rank::device, [this] { mutex_.lock(); }, [this] { mutex_.unlock(); }};
};

}  // namespace tierpool
