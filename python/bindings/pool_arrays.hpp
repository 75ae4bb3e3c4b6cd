#pragma once

#include <cstdint>
#include <memory>

#include "array_memory.hpp"
#include "tierpool/pool/memory_pool.hpp"

namespace tierpool::bindings {

/// Arrays in the heaps of a pool, which finds them by their address.
class PoolArrays final : public ArrayMemory {
 public:
  explicit PoolArrays(std::shared_ptr<MemoryPool> pool) noexcept : pool_(std::move(pool)) {}

  [[nodiscard]] ArrayBlock take(std::uint64_t bytes) noexcept override;
  [[nodiscard]] ArrayBlock find(std::uint64_t address) noexcept override;
  [[nodiscard]] bool release(std::uint64_t address) noexcept override;
  [[nodiscard]] bool is_closed() const noexcept override { return pool_->is_closed(); }

 private:
  const std::shared_ptr<MemoryPool> pool_;
};

}  // namespace tierpool::bindings
