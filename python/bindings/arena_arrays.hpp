#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "array_memory.hpp"
#include "tierpool/arena/buffer_pool.hpp"

namespace tierpool::bindings {

/// Arrays that are leases of a buffer pool. Each counts as a view of its lease as long as it lives. Guarded by the GIL.
class ArenaArrays final : public ArrayMemory {
 public:
  explicit ArenaArrays(std::shared_ptr<BufferPool> pool) noexcept : pool_(std::move(pool)) {}

  [[nodiscard]] ArrayBlock take(std::uint64_t bytes) noexcept override;
  [[nodiscard]] ArrayBlock find(std::uint64_t address) noexcept override;
  [[nodiscard]] bool release(std::uint64_t address) noexcept override;
  [[nodiscard]] bool is_closed() const noexcept override { return pool_->is_closed(); }

 private:
  // NumPy frees by address alone. In a pool that cuts views off, an array of a past epoch may still stand where one of
  // this epoch does: the lease then ends with the last of them, or with the next reset.
  struct Place {
    Lease lease;  // of the latest array there
    std::uint32_t array_count = 0;
  };

  [[nodiscard]] Lease lease_viewed(std::uint64_t bytes);

  const std::shared_ptr<BufferPool> pool_;
  std::unordered_map<std::uint64_t, Place> places_;  // by address
};

}  // namespace tierpool::bindings
