// Random programs on several streams, run in random order: no memory reaches a stream before others have done with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/pool_fixture.hpp"
#include "support/stream_memory.hpp"

namespace tierpool {
namespace {

using testing::expect_identities;
using testing::kGranule;
using testing::StreamMemory;

constexpr std::uint64_t kLargestPages = 32;

struct LiveBuffer {
  Allocation allocation;
  MemoryPool* lane = nullptr;
  StreamHandle stream = kDefaultStream;
  std::uint64_t tag = 0;
};

/// One thread's random program: allocates on a stream, uses on it and on others, releases in each way there is.
class Program {
 public:
  Program(MemoryPool& pool, StreamMemory& memory, const std::vector<StreamHandle>& streams, std::uint64_t seed)
      : pool_(pool), memory_(memory), streams_(streams), random_(seed), next_tag_(seed << 32U) {}

  void step() {
    if (live_.size() < 12 && below(2) == 0) {
      allocate();
    } else if (!live_.empty()) {
      std::swap(live_[below(live_.size())], live_.back());
      release(live_.back());
      live_.pop_back();
    }
  }
  void finish() {
    while (!live_.empty()) {
      release(live_.back());
      live_.pop_back();
    }
  }
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_; }

 private:
  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return random_() % end; }
  [[nodiscard]] StreamHandle any_stream() { return streams_[below(streams_.size())]; }

  void allocate() {
    LiveBuffer buffer;
    buffer.stream = any_stream();
    buffer.tag = ++next_tag_;
    buffer.lane = &pool_.lane(buffer.stream);
    const std::uint64_t bytes = (1 + below(kLargestPages)) * StreamMemory::kPageBytes;
    const auto holder = below(2) == 0 ? Holder::buffer : Holder::array;
    if (buffer.lane->serve({.bytes = bytes, .holder = holder}, buffer.allocation) == AllocationOutcome::served) {
      memory_.write(buffer.stream, buffer.allocation, buffer.tag);
      live_.push_back(buffer);
    } else {
      ++refused_;
    }
  }

  void use(const LiveBuffer& buffer, StreamHandle stream) {
    if (stream != buffer.stream) {
      memory_.order(stream, buffer.stream);
    }
    memory_.check(stream, buffer.allocation, buffer.tag);
  }

  void release(LiveBuffer& buffer) {
    const StreamHandle other = any_stream();
    switch (below(4)) {
      case 0:  // the last use is on another stream
        use(buffer, other);
        EXPECT_TRUE(buffer.lane->release(buffer.allocation, other));
        return;
      case 1:  // two others use it, and nobody orders them
        for (const StreamHandle stream : {other, any_stream()}) {
          use(buffer, stream);
          EXPECT_TRUE(buffer.lane->record_stream(buffer.allocation, stream));
        }
        EXPECT_TRUE(buffer.lane->release(buffer.allocation));
        return;
      case 2:
        use(buffer, buffer.stream);
        EXPECT_TRUE(buffer.lane->release(buffer.allocation, buffer.stream));
        return;
      default:
        use(buffer, buffer.stream);
        EXPECT_TRUE(buffer.lane->release(buffer.allocation));
    }
  }

  MemoryPool& pool_;
  StreamMemory& memory_;
  const std::vector<StreamHandle>& streams_;
  std::mt19937_64 random_;
  std::uint64_t next_tag_;
  std::uint64_t refused_ = 0;
  std::vector<LiveBuffer> live_;
};

struct Variant {
  bool magazines = false;
  OnExhaustion on_exhaustion = OnExhaustion::raise;
  bool limited = false;  ///< by max_bytes, to what the heaps have

  [[nodiscard]] std::string name() const {
    return std::string(magazines ? "on" : "off") + (on_exhaustion == OnExhaustion::fallback ? "Fallbacks" : "") +
           (limited ? "Limited" : "");
  }
  friend void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name(); }
};

class MemoryPoolStreamsStress : public testing::PoolTest, public ::testing::WithParamInterface<Variant> {
 protected:
  MemoryPoolStreamsStress() {
    for (int count = 0; count < 8; ++count) {
      streams_.push_back(device_->simulated_streams().create_stream());
    }
  }

  /// Room for about half of what the programs would like to have.
  MemoryPool& build_pool(std::uint64_t granules) {
    return build(granules * kGranule, 1, [granules](PoolConfig& config) {
      config.magazines = GetParam().magazines;
      config.on_exhaustion = GetParam().on_exhaustion;
      config.max_bytes = GetParam().limited ? std::optional(granules * kGranule) : std::nullopt;
    });
  }

  void expect_at_rest(MemoryPool& pool, StreamMemory& memory) {
    EXPECT_TRUE(device_->simulated_streams().synchronize_device());
    pool.poll_pending();
    EXPECT_EQ(memory.corrupted(), 0u);
    EXPECT_EQ(pool.statistics().active_allocations, 0u);
    EXPECT_EQ(pool.statistics().pending_bytes, 0u);
    EXPECT_EQ(device_->simulated_streams().misuse_count(), 0u);
    EXPECT_EQ(device_->misuse_count(), 0u);
    expect_identities(pool);
  }

  std::vector<StreamHandle> streams_;
};

TEST_P(MemoryPoolStreamsStress, RandomProgramsInRandomOrderKeepWhatTheyWrote) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    MemoryPool& pool = build_pool(12);
    SimulatedStreams& streams = device_->simulated_streams();
    const std::vector<StreamHandle> some{kDefaultStream, streams.create_stream(), streams.create_stream(),
                                         streams.create_stream()};
    StreamMemory memory(*device_);
    Program program(pool, memory, some, seed);
    std::mt19937_64 random(seed);
    for (int step = 0; step < 800; ++step) {
      program.step();
      for (std::uint64_t turns = random() % 6; turns > 0; --turns) {
        device_->simulated_streams().advance_any(random());
      }
      if (step % 50 == 0) {
        expect_identities(pool);
        EXPECT_LE(device_->committed_bytes(), 12 * kGranule);
      }
    }
    program.finish();
    for (std::size_t index = 1; index < some.size(); ++index) {
      streams.destroy_stream(some[index]);
    }
    static_cast<void>(pool.trim());
    const Allocation all = pool.allocate(12 * kGranule);
    EXPECT_FALSE(all.is_fallback()) << "not all came back from lanes whose streams have gone";
    EXPECT_TRUE(pool.release(all));
    EXPECT_LT(program.refused(), 200u);
    EXPECT_GT(memory.checked(), 100u);
    expect_at_rest(pool, memory);
  }
}

TEST_P(MemoryPoolStreamsStress, ThreadsOnEightStreamsKeepWhatTheyWrote) {
  MemoryPool& pool = build_pool(64);
  StreamMemory memory(*device_);
  // Of each thread's caches of each lane, snapshots hold the lock at once: ThreadSanitizer knows 64 locks at most.
  constexpr std::size_t kThreads = 5;
  std::atomic<std::size_t> running{kThreads};
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < kThreads; ++index) {
    threads.emplace_back([&, index] {
      Program program(pool, memory, streams_, index + 1);
      for (int step = 0; step < 1500; ++step) {
        program.step();
        if (step % 500 == 250) {
          static_cast<void>(pool.trim());
        }
      }
      program.finish();
      running.fetch_sub(1);
    });
  }
  std::thread device([&] {
    for (std::uint64_t turn = 0; running.load() != 0; ++turn) {
      device_->simulated_streams().advance_any(turn);
    }
  });
  std::uint64_t snapshots = 0;
  for (; running.load() != 0; ++snapshots) {
    const PoolStatistics now = pool.statistics();
    EXPECT_LE(now.used_bytes, now.peak_used_bytes);
    EXPECT_LE(now.used_bytes + now.cached_bytes + now.pending_bytes, now.capacity_bytes);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  device.join();
  EXPECT_GT(snapshots, 0u);
  expect_at_rest(pool, memory);
}

INSTANTIATE_TEST_SUITE_P(Magazines, MemoryPoolStreamsStress,
                         ::testing::Values(Variant{}, Variant{.magazines = true},
                                           Variant{.on_exhaustion = OnExhaustion::fallback},
                                           Variant{.magazines = true, .on_exhaustion = OnExhaustion::fallback},
                                           Variant{.on_exhaustion = OnExhaustion::fallback, .limited = true},
                                           Variant{.magazines = true, .limited = true}),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace tierpool
