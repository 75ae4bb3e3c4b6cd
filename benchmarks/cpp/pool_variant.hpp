#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "tierpool/base/bytes.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool {

/// A way to configure the pool that the tables compare with others.
struct PoolVariant {
  const char* name;
  void (*configure)(PoolConfig&);
};

inline constexpr std::array kPoolVariants = {
    PoolVariant{"tierpool", [](PoolConfig&) {}},
    PoolVariant{"tierpool-magazines-off", [](PoolConfig& config) { config.magazines = false; }},
};

/// Those that may differ in how full a heap gets.
inline constexpr std::array kUtilisationVariants = {
    PoolVariant{"tierpool", [](PoolConfig&) {}},
    PoolVariant{"tierpool-exact-above-64KiB", [](PoolConfig& config) { config.exact_above_bytes = 64 * kKiB; }},
    PoolVariant{"tierpool-magazines-off", [](PoolConfig& config) { config.magazines = false; }},
};

/// A pool of that variant with one heap of `capacity_bytes` and no fallback. It stands on the simulated device: a heap
/// on the host would commit gigabytes for nothing, since no benchmark of the allocator writes to them.
[[nodiscard]] std::shared_ptr<MemoryPool> make_pool(const PoolVariant& variant, std::uint64_t capacity_bytes);

/// The pool as a C++ user calls it. Thread-safe.
class PoolAllocator {
 public:
  using Live = Allocation;

  explicit PoolAllocator(std::shared_ptr<MemoryPool> pool) : pool_(std::move(pool)) {}

  void allocate(std::uint64_t bytes, Live& live) const { static_cast<void>(pool_->serve(bytes, live)); }
  void free(const Live& live) const { static_cast<void>(pool_->release(live)); }

 private:
  std::shared_ptr<MemoryPool> pool_;
};

/// Hands all threads of a run the same pool; it goes with the last of them. Thread-safe.
class SharedPool {
 public:
  explicit SharedPool(const PoolVariant& variant) : variant_(variant) {}

  [[nodiscard]] PoolAllocator open(std::uint64_t capacity_bytes);

 private:
  const PoolVariant& variant_;
  std::mutex mutex_;
  std::weak_ptr<MemoryPool> pool_;
};

}  // namespace tierpool
