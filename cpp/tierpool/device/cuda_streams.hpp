#pragma once

#include "tierpool/device/cuda_context.hpp"
#include "tierpool/device/stream.hpp"

namespace tierpool {

/// The streams of one CUDA device. Handles are the driver's CUstream and CUevent. Thread-safe.
class CudaStreams final : public DeviceStreams {
 public:
  /// The context outlives this object.
  explicit CudaStreams(CudaContext& context) noexcept : context_(context) {}

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
  void copy_from_device_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes, StreamHandle stream,
                              DeviceStreams& source_streams) override;

 private:
  [[nodiscard]] const CudaFunctions& call() const noexcept { return context_.functions(); }

  CudaContext& context_;
};

}  // namespace tierpool
