#pragma once

#include <cstdint>
#include <functional>

#include "support/pool_fixture.hpp"

namespace tierpool::testing {

/// A pool and two streams that stand still until a test advances them.
class StreamPoolTest : public PoolTest {
 protected:
  /// One heap of 16 granules a lane.
  MemoryPool& build_pool(const std::function<void(PoolConfig&)>& adjust = nullptr) {
    return build(16 * kGranule, 1, adjust);
  }
  MemoryPool& build_pool(OnExhaustion on_exhaustion) {
    return build_pool([=](PoolConfig& config) { config.on_exhaustion = on_exhaustion; });
  }
  [[nodiscard]] SimulatedStreams& streams() { return device_->simulated_streams(); }
  /// Keeps a stream busy until it is advanced.
  void keep_busy(StreamHandle stream) {
    streams().enqueue(stream, [] {});
  }
  void run(StreamHandle stream) {
    while (streams().advance(stream)) {
    }
  }
  [[nodiscard]] std::uint64_t pending_bytes() { return pool_->statistics().pending_bytes; }

  const StreamHandle a_ = device_->simulated_streams().create_stream();
  const StreamHandle b_ = device_->simulated_streams().create_stream();
};

}  // namespace tierpool::testing
