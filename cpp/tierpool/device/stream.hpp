#pragma once

#include <cstdint>

namespace tierpool {

/// A stream as its driver knows it (CUDA: the CUstream), and as every library hands it around.
using StreamHandle = std::uint64_t;
/// A point in the work of a stream, as its driver knows it.
using EventHandle = std::uint64_t;

inline constexpr StreamHandle kDefaultStream = 0;    ///< the device's own, shared by all threads
inline constexpr StreamHandle kLegacyStream = 1;     ///< the same by its other name
inline constexpr StreamHandle kPerThreadStream = 2;  ///< the calling thread's default: another stream on each thread
inline constexpr EventHandle kNoEvent = 0;

enum class EventState {
  complete,  ///< all work before its recording has run; also an event that was never recorded
  pending,
  failed  ///< the device cannot tell any more: after a fault of its own, or because its context is gone
};

/// Work that runs later, in the order of its stream: what a device with streams offers besides memory.
///
/// A stream that was destroyed must not be named again: whoever may still have to, keeps it alive. The simulated device
/// refuses it; CUDA's driver cannot tell, and is known to crash. Nothing but the synchronize_ and copy_async calls
/// blocks. Any thread may call, during a capture of any stream too; an event is used by one thread at a time, except
/// that several may query it.
class DeviceStreams {
 public:
  DeviceStreams() = default;
  virtual ~DeviceStreams() = default;
  DeviceStreams(const DeviceStreams&) = delete;
  DeviceStreams& operator=(const DeviceStreams&) = delete;

  /// Throws DeviceError naming the stream unless it is a live one of this device.
  virtual void require_stream(StreamHandle stream) = 0;
  /// Tells streams apart that had the same handle one after another, and threads' default streams. The default stream
  /// has one id under both its names. 0 where the driver cannot tell, or does not know the stream.
  [[nodiscard]] virtual std::uint64_t stream_id(StreamHandle stream) noexcept = 0;
  /// Whether work given to the stream is recorded into a graph and not run. An event recorded then must never be
  /// queried or waited for from outside the graph. True also when another stream's capture forbids the question.
  [[nodiscard]] virtual bool is_capturing(StreamHandle stream) noexcept = 0;

  /// kNoEvent when the device has none left. Events are costly to make: the caller keeps them for further use.
  [[nodiscard]] virtual EventHandle create_event() noexcept = 0;
  /// A recorded event may be destroyed before it is complete.
  virtual void destroy_event(EventHandle event) noexcept = 0;
  /// Moves the event to the end of the stream's present work. False when the stream is of another device.
  [[nodiscard]] virtual bool record_event(EventHandle event, StreamHandle stream) noexcept = 0;
  [[nodiscard]] virtual EventState query_event(EventHandle event) noexcept = 0;
  /// Holds work given to the stream from now on until the event, as it is recorded now, is complete.
  [[nodiscard]] virtual bool wait_event(StreamHandle stream, EventHandle event) noexcept = 0;

  /// Blocks until the event is complete, all work of the stream, or of the device, has run. False when that can never
  /// be known: after a fault of the device, or while one of its streams is captured. To synchronise the device while a
  /// stream is captured that the default stream is not ordered with invalidates the capture.
  [[nodiscard]] virtual bool synchronize_event(EventHandle event) noexcept = 0;
  [[nodiscard]] virtual bool synchronize_stream(StreamHandle stream) noexcept = 0;
  [[nodiscard]] virtual bool synchronize_device() noexcept = 0;

  /// Copies in the stream's order between memory of this device and of the host, either way, or within either. Host
  /// memory that is not pinned is copied before the call returns, or while it blocks. Throws DeviceError.
  virtual void copy_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                          StreamHandle stream) = 0;
  /// Copies from memory of another device, also where neither device reaches the other's memory. The source's own
  /// streams are not waited for. Throws DeviceError.
  virtual void copy_from_device_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                                      StreamHandle stream, DeviceStreams& /*source_streams*/) {
    copy_async(destination, source, bytes, stream);
  }
};

}  // namespace tierpool
