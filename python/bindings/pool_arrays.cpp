#include "pool_arrays.hpp"

#include "tierpool/base/logging.hpp"

namespace tierpool::bindings {
namespace {

ArrayBlock block_of(const Allocation& allocation) noexcept {
  return {allocation.address, allocation.block_bytes, allocation.dirty_bytes};
}

}  // namespace

ArrayBlock PoolArrays::take(std::uint64_t bytes) noexcept {
  Allocation allocation;
  const AllocationRequest request{.bytes = bytes, .holder = Holder::array};
  switch (pool_->serve(request, allocation)) {
    case AllocationOutcome::served:
      return block_of(allocation);
    case AllocationOutcome::closed:
      log(LogLevel::error, "MetalMemoryPool: NumPy asked a closed pool for memory");
      return {};
    default:
      return {};
  }
}

ArrayBlock PoolArrays::find(std::uint64_t address) noexcept { return block_of(pool_->find_array(address)); }

bool PoolArrays::release(std::uint64_t address) noexcept {
  const Allocation allocation = pool_->find_array(address);
  return allocation && pool_->release(allocation);
}

}  // namespace tierpool::bindings
