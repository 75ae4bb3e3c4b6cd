#include "tierpool/device/cuda_streams.hpp"

#include <string>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"
#include "tierpool/base/thread_number.hpp"

namespace tierpool {
namespace {

// Ids of streams that the driver does not number for us: each in a range of its own, far above the driver's.
constexpr std::uint64_t kDefaultStreamId = std::uint64_t{1} << 63;
constexpr std::uint64_t kPerThreadIds = std::uint64_t{1} << 62;

CuStream stream_of(StreamHandle stream) noexcept { return pointer_at(stream); }
CuEvent event_of(EventHandle event) noexcept { return pointer_at(event); }

}  // namespace

void CudaStreams::require_stream(StreamHandle stream) {
  const CudaContext::Scope scope(context_);
  const std::string what = "Cannot use stream " + std::to_string(stream);
  if (!scope) {
    context_.raise(what, "the context", scope.result());
  }
  if (stream <= kPerThreadStream) {
    CuDevice device = 0;  // every context has these, unless it is gone
    if (const CuResult result = call().ctx_get_device(&device); result != kCuSuccess) {
      context_.raise(what, "cuCtxGetDevice", result);
    }
    return;
  }
  if (is_capturing(stream)) {
    return;  // asking for its context would invalidate the capture
  }
  CuContext owner = nullptr;
  if (const CuResult result = call().stream_get_ctx(stream_of(stream), &owner); result != kCuSuccess) {
    context_.raise(what, "cuStreamGetCtx", result);
  }
  if (owner != context_.get()) {
    throw DeviceError(what + " on cuda:" + std::to_string(context_.index()) +
                      ": it belongs to another device or context; pass a stream of this device");
  }
}

std::uint64_t CudaStreams::stream_id(StreamHandle stream) noexcept {
  if (stream <= kLegacyStream) {
    return kDefaultStreamId;
  }
  if (stream == kPerThreadStream) {
    return kPerThreadIds + thread_number();
  }
  unsigned long long id = 0;
  const CudaContext::Scope scope(context_);
  const bool told =
      scope && call().stream_get_id != nullptr && call().stream_get_id(stream_of(stream), &id) == kCuSuccess;
  return told ? id + 1 : 0;
}

bool CudaStreams::is_capturing(StreamHandle stream) noexcept {
  const CudaContext::Scope scope(context_);
  int status = kCuNotCapturing;
  const CuResult result = scope ? call().stream_is_capturing(stream_of(stream), &status) : scope.result();
  return result == kCuStreamCaptureImplicit || (result == kCuSuccess && status != kCuNotCapturing);
}

EventHandle CudaStreams::create_event() noexcept {
  const CudaContext::Scope scope(context_);
  CuEvent event = nullptr;
  // Without timing an event costs less to record and to wait for.
  const bool created = scope && call().event_create(&event, kCuEventWithoutTiming) == kCuSuccess;
  return created ? address_of(event) : kNoEvent;
}

void CudaStreams::destroy_event(EventHandle event) noexcept {
  const CudaContext::Scope scope(context_);
  if (scope) {
    static_cast<void>(call().event_destroy(event_of(event)));  // fails only when its context went, and it with it
  }
}

bool CudaStreams::record_event(EventHandle event, StreamHandle stream) noexcept {
  const CudaContext::Scope scope(context_);
  return scope && call().event_record(event_of(event), stream_of(stream)) == kCuSuccess;
}

EventState CudaStreams::query_event(EventHandle event) noexcept {
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? call().event_query(event_of(event)) : scope.result();
  if (result == kCuNotReady) {
    return EventState::pending;
  }
  return result == kCuSuccess ? EventState::complete : EventState::failed;
}

bool CudaStreams::wait_event(StreamHandle stream, EventHandle event) noexcept {
  const CudaContext::Scope scope(context_);
  return scope && call().stream_wait_event(stream_of(stream), event_of(event), 0) == kCuSuccess;
}

bool CudaStreams::synchronize_event(EventHandle event) noexcept {
  const CudaContext::Scope scope(context_);
  return scope && call().event_synchronize(event_of(event)) == kCuSuccess;
}

bool CudaStreams::synchronize_stream(StreamHandle stream) noexcept {
  const CudaContext::Scope scope(context_);
  return scope && call().stream_synchronize(stream_of(stream)) == kCuSuccess;
}

bool CudaStreams::synchronize_device() noexcept {
  const CudaContext::Scope scope(context_);
  // It would invalidate a capture. To be seen from here are those of streams that are ordered with the default one, and
  // of this thread's own; to ask any other stream, someone has to keep it alive.
  if (scope && (is_capturing(kDefaultStream) || is_capturing(kPerThreadStream))) {
    return false;
  }
  const CuResult result = scope ? call().ctx_synchronize() : scope.result();
  // Where the driver or the context has gone, no work is left.
  return result == kCuSuccess || says_context_is_gone(result) || !context_.driver().is_usable();
}

void CudaStreams::copy_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                             StreamHandle stream) {
  if (bytes == 0) {
    return;
  }
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? call().mem_copy_async(destination, source, bytes, stream_of(stream)) : scope.result();
  if (result != kCuSuccess) {
    context_.raise("Cannot copy " + format_memory_size(bytes), "cuMemcpyAsync", result);
  }
}

void CudaStreams::copy_from_device_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                                         StreamHandle stream, DeviceStreams& source_streams) {
  auto* owner = dynamic_cast<CudaStreams*>(&source_streams);
  if (owner == nullptr || bytes == 0) {
    copy_async(destination, source, bytes, stream);
    return;
  }
  const CudaContext::Scope scope(context_);
  const CuResult result = scope ? call().mem_copy_peer_async(destination, context_.get(), source, owner->context_.get(),
                                                             bytes, stream_of(stream))
                                : scope.result();
  if (result != kCuSuccess) {
    context_.raise("Cannot copy " + format_memory_size(bytes), "cuMemcpyPeerAsync", result);
  }
}

}  // namespace tierpool
