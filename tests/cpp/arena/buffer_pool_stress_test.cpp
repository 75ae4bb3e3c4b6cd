// Eight threads at once; run it under the thread sanitizer too.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "support/buffer_pool_fixture.hpp"
#include "tierpool/arena/buffer_pool.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::FakeEvent;
using testing::SimulatedArena;

constexpr int kThreads = 8;
constexpr int kSteps = 3000;

void run_threads(const std::function<void(std::uint64_t)>& work) {
  std::vector<std::thread> threads;
  for (std::uint64_t index = 0; index < kThreads; ++index) {
    threads.emplace_back(work, index);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void mark(const Lease& lease) {
  std::memset(pointer_at(lease.address), static_cast<int>(lease.serial % 251), lease.requested_bytes);
}

void expect_marked(const Lease& lease) {
  const auto* const bytes = static_cast<const std::uint8_t*>(pointer_at(lease.address));
  for (std::uint64_t i = 0; i < lease.requested_bytes; ++i) {
    ASSERT_EQ(bytes[i], lease.serial % 251);
  }
}

// No resets, so that whoever holds a lease owns its bytes: any overlap is a race, or a wrong mark.
void hold_and_release(BufferPool& pool, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Lease> held;
  for (int step = 0; step < kSteps; ++step) {
    const std::uint64_t action = random() % 10;
    if (action < 4) {
      held.push_back(pool.alloc(random() % 3000 + 1));
      mark(held.back());
    } else if (action < 5) {
      const std::vector<Lease> batch = testing::alloc_batch(pool, {random() % 3000, 64, random() % 9000});
      held.insert(held.end(), batch.begin(), batch.end());
      for (const Lease& lease : batch) {
        mark(lease);
      }
    } else if (action < 9 && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      expect_marked(held.back());
      ASSERT_EQ(pool.release(held.back()), ReleaseOutcome::released);
      held.pop_back();
    } else {
      static_cast<void>(pool.trim(random() % 20000));
    }
  }
  for (const Lease& lease : held) {
    expect_marked(lease);
  }
  ASSERT_EQ(pool.release_batch(held), held.size());
}

TEST(BufferPoolStress, NobodySharesAByte) {
  for (const ZeroPolicy zero : {ZeroPolicy::never, ZeroPolicy::always}) {
    BufferPoolConfig config;
    config.zero = zero;
    BufferPool pool(config, testing::bare(std::make_shared<HostDevice>()));
    run_threads([&](std::uint64_t index) { hold_and_release(pool, index); });
    const BufferPoolStatistics now = pool.statistics();
    EXPECT_EQ(now.in_use_count, 0u);
    EXPECT_EQ(now.live_requested_bytes, 0u);
    EXPECT_EQ(now.held_count, now.free_count);
    EXPECT_EQ(now.held_bytes, now.free_bytes);
  }
}

void use_everything(BufferPool& pool, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Lease> held;
  for (int step = 0; step < kSteps; ++step) {
    try {
      switch (random() % 12) {
        case 0:
          static_cast<void>(pool.reset());
          break;
        case 1:
          static_cast<void>(pool.reset(std::make_shared<FakeEvent>()));
          break;
        case 2:
          static_cast<void>(pool.trim(random() % (1 << 20)));
          break;
        case 3:
          for (const Lease& lease : testing::alloc_batch(pool, {random() % 90000, 100, random() % 9000})) {
            held.push_back(lease);
          }
          break;
        case 4:
          static_cast<void>(pool.statistics());
          static_cast<void>(pool.live_views());
          break;
        case 5:
          if (!held.empty() && pool.add_view(held.back())) {
            pool.remove_view(held.back());
          }
          break;
        case 6:
          held.push_back(pool.alloc_exact(random() % 5000));
          break;
        default:
          if (held.size() < 20) {
            held.push_back(pool.alloc(random() % 50000));
          } else {
            static_cast<void>(pool.release(held.front()));
            held.erase(held.begin());
          }
      }
    } catch (const OutOfMemoryError&) {
      held.clear();
    }
  }
}

TEST(BufferPoolStress, BooksAreTrueAfterEverythingAtOnce) {
  for (const SizeClasses classes : {SizeClasses::eighths, SizeClasses::exact}) {
    BufferPoolConfig config;
    config.size_classes = classes;
    config.max_bytes = 8 * kMiB;
    config.max_buffers = 300;
    SimulatedArena arena(config, 6 * kMiB);
    run_threads([&](std::uint64_t index) { use_everything(*arena.pool, index); });
    EXPECT_EQ(arena.pool->reset(), ResetOutcome::done);
    const BufferPoolStatistics now = arena.pool->statistics();
    EXPECT_EQ(now.live_views, 0u);
    EXPECT_EQ(now.in_use_bytes, 0u);
    EXPECT_EQ(now.held_count, now.free_count + now.quarantined_count);
    EXPECT_EQ(now.held_bytes, now.free_bytes + now.quarantined_bytes);
    arena.pool.reset();
    EXPECT_EQ(arena.device->direct_bytes(), 0u);
    EXPECT_EQ(arena.device->misuse_count(), 0u);
  }
}

TEST(BufferPoolStress, CloseInTheMiddleLosesNothing) {
  SimulatedArena arena;
  run_threads([&](std::uint64_t index) {
    bool closed_here = false;
    try {
      for (int step = 0;; ++step) {  // until the close, however late that thread gets its turn
        if (index == 0 && step == kSteps / 10) {
          arena.pool->close();
          closed_here = true;
        }
        const Lease lease = arena.pool->alloc(index * 1000 + static_cast<std::uint64_t>(step % kSteps) * 10);
        static_cast<void>(arena.pool->release(lease));
        ASSERT_FALSE(closed_here) << "served after close()";
      }
    } catch (const PoolClosedError&) {
    }
  });
  EXPECT_EQ(arena.pool->statistics().held_count, 0u);
  EXPECT_EQ(arena.device->direct_bytes(), 0u);
  EXPECT_EQ(arena.device->misuse_count(), 0u);
}

}  // namespace
}  // namespace tierpool
