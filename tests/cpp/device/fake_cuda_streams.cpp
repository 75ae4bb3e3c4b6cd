#include "device/fake_cuda_state.hpp"

// Events and streams. The driver's own names, hence none of ours.

namespace tierpool::testing {

extern "C" {

CuResult cuEventCreate(CuEvent* event, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventCreate")
  auto* created = new Event;
  state().events.insert(created);
  *event = created;
  return kCuSuccess;
}
CuResult cuEventDestroy_v2(CuEvent event) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventDestroy_v2")
  if (state().events.erase(static_cast<Event*>(event)) == 0) {
    return misuse(kInvalidHandle);
  }
  delete static_cast<Event*>(event);
  return kCuSuccess;
}
CuResult cuEventRecord(CuEvent event, CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventRecord")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  if (is_legacy(stream) && is_any_capturing(true)) {
    return misuse(kCuStreamCaptureImplicit);  // and the capture is invalid
  }
  Queue& queue = queue_of(stream);
  enqueue(queue, {});
  static_cast<Event*>(event)->recorded = queue.position();
  return kCuSuccess;
}
CuResult cuEventQuery(CuEvent event) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventQuery")
  return is_complete(static_cast<Event*>(event)->recorded) ? kCuSuccess : kCuNotReady;
}
CuResult cuEventSynchronize(CuEvent event) {
  const bool opened = pass_gate();
  FAKE_CUDA_BEGIN(begin_in_context, "cuEventSynchronize")
  complete(static_cast<Event*>(event)->recorded);
  return opened ? kCuSuccess : misuse(kCuNotReady);
}
CuResult cuStreamGetCtx(CuStream stream, CuContext* context) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamGetCtx")
  const Stream* found = find_stream(stream);
  if (found == nullptr) {
    return kInvalidHandle;
  }
  if (found->capturing) {
    return misuse(kCaptureUnsupported);  // and the capture is invalid
  }
  *context = found->context;
  return kCuSuccess;
}
CuResult cuStreamIsCapturing(CuStream stream, int* status) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamIsCapturing")
  if (is_legacy(stream) && is_any_capturing(true)) {
    return kCuStreamCaptureImplicit;
  }
  const Stream* found = find_stream(stream);
  const bool is_captured =
      found == nullptr ? is_special(stream) && !is_legacy(stream) && captures_thread_stream : found->capturing;
  *status = is_captured ? 1 : 0;
  // No misuse: with cuStreamGetCtx, it is what a stream that a user passes is asked, alive or not.
  return found == nullptr && !is_special(stream) ? kInvalidHandle : kCuSuccess;
}
CuResult cuStreamSynchronize(CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamSynchronize")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  complete(queue_of(stream).position());
  return kCuSuccess;
}
CuResult cuStreamWaitEvent(CuStream stream, CuEvent event, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamWaitEvent")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  enqueue(queue_of(stream), {{}, static_cast<Event*>(event)->recorded});
  return kCuSuccess;
}
CuResult cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, capture_mode);
  return kCuSuccess;
}
CuResult cuStreamGetId(CuStream stream, unsigned long long* id) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuStreamGetId")
  const Stream* found = find_stream(stream);
  *id = found == nullptr ? 0 : found->id;
  return found == nullptr ? misuse(kInvalidHandle) : kCuSuccess;
}

}  // extern "C"
}  // namespace tierpool::testing
