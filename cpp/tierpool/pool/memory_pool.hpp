#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/pool/allocation.hpp"
#include "tierpool/pool/byte_limit.hpp"
#include "tierpool/pool/fallback_allocations.hpp"
#include "tierpool/pool/heap.hpp"
#include "tierpool/pool/origins.hpp"
#include "tierpool/pool/pool_config.hpp"
#include "tierpool/pool/pool_log.hpp"
#include "tierpool/pool/pool_statistics.hpp"

namespace tierpool {

/// What a caller asks of a pool.
struct AllocationRequest {
  std::uint64_t bytes = 0;
  std::uint64_t alignment_bytes = kUnitBytes;
  Holder holder = Holder::buffer;
  bool heaps_only = false;  ///< no fallback, whatever the configuration says
  bool may_block = true;    ///< whether to wait for the device when memory has to be committed or taken from it
};

enum class AllocationOutcome {
  served,
  out_of_memory,
  over_limit,   ///< max_bytes would be exceeded
  would_block,  ///< only with may_block off; nothing has changed, not even a counter
  closed,
};

struct WarmupReport {
  std::uint64_t warm_bytes = 0;       ///< asked to be warm, over all heaps
  std::uint64_t committed_bytes = 0;  ///< newly committed by this call, in whole granules
  double milliseconds = 0.0;
};

/// Told the bytes done and the bytes to do; called with no lock held, may throw.
using WarmupProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

/// Heaps, the strategy that picks one, fallback to the device, and statistics.
///
/// Every call is thread-safe. Allocations may be released from any thread, also after close(); whoever holds one also
/// holds the pool. Records are logged with no lock held. Safe over fork, if its device is.
class MemoryPool {
 public:
  /// Reserves the heaps and warms them up. Throws ConfigError, InitializationError.
  MemoryPool(const PoolConfig& config, std::shared_ptr<Device> device);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// Serves a request or says why not. Throws nothing: the entry for callers that must not see exceptions.
  /// The alignment must have passed check_alignment().
  [[nodiscard]] AllocationOutcome serve(const AllocationRequest& request, Allocation& allocation) noexcept;
  /// Throws the exception that belongs to an outcome other than served or would_block.
  [[noreturn]] void throw_failure(AllocationOutcome outcome, std::uint64_t bytes) const;
  /// Throws std::invalid_argument unless a power of two the device can serve.
  void check_alignment(std::uint64_t alignment_bytes) const;

  /// At least `bytes` from a heap or, by on_exhaustion, from the device. Zero bytes take one unit.
  /// Throws OutOfMemoryError, PoolClosedError, std::invalid_argument for the alignment.
  [[nodiscard]] Allocation allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = kUnitBytes);
  /// From a heap or not at all. Throws PoolClosedError, std::invalid_argument.
  [[nodiscard]] std::optional<Allocation> try_allocate(std::uint64_t bytes, std::uint64_t alignment_bytes = kUnitBytes);
  /// One allocation a size, or none at all and OutOfMemoryError; what was undone is counted nowhere but as exhaustion.
  [[nodiscard]] std::vector<Allocation> allocate_batch(std::span<const std::uint64_t> sizes);
  /// Takes memory back. False for an allocation that is not live in this pool; nothing changes then.
  [[nodiscard]] bool release(const Allocation& allocation) noexcept;

  /// The live array at that address; empty when this pool has none there.
  [[nodiscard]] Allocation find_array(std::uint64_t address) noexcept;

  /// A heap with no live block, as one allocation of its size. None left: as allocate() when no heap can serve.
  [[nodiscard]] Allocation acquire_heap() { return allocate(heap_size_bytes()); }
  /// Whether this is a whole heap, or the fallback for one.
  [[nodiscard]] bool is_whole_heap(const Allocation& allocation) const noexcept {
    return allocation.block_bytes == heap_size_bytes();
  }

  /// Commits the low end of every heap, as far as the sizes reach that fit together or the largest that fits alone.
  /// Live blocks are untouched. A size above the heap is skipped, with a warning unless it comes from a default.
  /// Throws OutOfMemoryError when the device has no memory left, PoolClosedError.
  WarmupReport warm_up(std::span<const std::uint64_t> sizes_bytes, const WarmupProgress& progress = nullptr,
                       bool sizes_are_default = false);
  /// Gives the memory of whole free granules back to the device. Returns the bytes given back.
  std::uint64_t trim();
  /// Refuses new work and logs what is still live. Memory goes with the last allocation. Idempotent.
  void close();
  [[nodiscard]] bool is_closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  [[nodiscard]] PoolStatistics statistics() const;
  [[nodiscard]] std::vector<HeapStatistics> heaps() const;
  /// Counts start again at zero; what is live stays known.
  void reset_statistics() noexcept;

  /// Remembers where a live allocation came from, for the leak report. Does nothing unless track_origins.
  void set_origin(const Allocation& allocation, std::string origin) { origins_.set(allocation, std::move(origin)); }

  [[nodiscard]] const PoolConfig& config() const noexcept { return config_; }
  [[nodiscard]] Device& device() const noexcept { return *device_; }
  [[nodiscard]] std::uint64_t heap_size_bytes() const noexcept { return heap_size_bytes_; }

 private:
  [[nodiscard]] AllocationOutcome serve(const AllocationRequest& request, bool counted,
                                        Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome serve_from_heaps(const AllocationRequest& request, bool counted,
                                                   Allocation& allocation) noexcept;
  [[nodiscard]] AllocationOutcome try_heaps(const AllocationRequest& request, bool counted,
                                            Allocation& allocation) noexcept;
  void undo(const Allocation& allocation) noexcept;
  void count(const Allocation& allocation) noexcept;
  [[nodiscard]] LeakReport leak_report() const;
  [[nodiscard]] std::uint64_t warm_bytes_per_heap(std::span<const std::uint64_t> sizes_bytes, bool are_default) const;
  void before_fork();
  void after_fork();

  const PoolConfig config_;
  const std::shared_ptr<Device> device_;
  const std::uint64_t heap_size_bytes_;
  mutable UsedBytes used_;
  const std::vector<std::unique_ptr<Heap>> heaps_;
  mutable FallbackAllocations fallbacks_;
  ByteLimit limit_;
  Origins origins_;
  PoolLog log_;

  std::atomic<bool> closed_{false};
  std::atomic<std::uint64_t> turn_{0};

  // trim() holds free blocks back for a moment: a request that finds none waits here and tries once more. No
  // std::shared_mutex: the child of a fork could not unlock it.
  std::mutex trim_mutex_;
  std::atomic<std::uint64_t> trim_epoch_{0};  // odd while a trim runs

  ForkHandler fork_handler_;  // last: it locks what stands above
};

}  // namespace tierpool
