#include "memory_end.hpp"

#include <utility>

#include "gil.hpp"

namespace tierpool::bindings {

void give_back_slowly(Buffer& memory) noexcept {
  if (memory.may_wait()) {
    const WithoutGilIfHeld without_gil;
    memory.release();
  } else {
    memory.release();
  }
}

void give_back(Buffer& memory, StreamHandle stream) noexcept {
  if (memory.may_wait()) {
    const WithoutGil without_gil;
    memory.release(stream);
  } else {
    memory.release(stream);
  }
}

PoolPointer ending_without_gil(PoolPointer pool) {
  MemoryPool* const address = pool.get();
  return {address, [owned = std::move(pool)](MemoryPool* /*pool*/) mutable {
            const WithoutGilIfHeld without_gil;
            owned.reset();
          }};
}

}  // namespace tierpool::bindings
