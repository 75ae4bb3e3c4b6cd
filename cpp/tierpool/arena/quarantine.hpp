#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tierpool/arena/completion_event.hpp"

namespace tierpool {

/// Buffers of past epochs that a device still works on, by the event that ends their wait. Not thread-safe: guarded by
/// its owner's lock; the events themselves are asked without it.
class Quarantine {
 public:
  struct Batch {
    std::uint64_t id = 0;
    std::shared_ptr<CompletionEvent> event;
    std::vector<std::uint32_t> slots;
  };

  [[nodiscard]] bool empty() const noexcept { return batches_.empty(); }
  /// Makes room for one more batch. Throws std::bad_alloc.
  void reserve() { batches_.reserve(batches_.size() + 1); }
  /// reserve() came before.
  void add(std::shared_ptr<CompletionEvent> event, std::vector<std::uint32_t> slots) noexcept {
    batches_.push_back({next_id_++, std::move(event), std::move(slots)});
  }
  /// The oldest batch with an id above `after`, without its slots; one without an event when there is none.
  [[nodiscard]] Batch next(std::uint64_t after) const noexcept {
    for (const Batch& batch : batches_) {
      if (batch.id > after) {
        return {batch.id, batch.event, {}};
      }
    }
    return {};
  }
  /// Takes a batch out; one without slots when somebody else did.
  [[nodiscard]] Batch take(std::uint64_t id) noexcept {
    for (auto batch = batches_.begin(); batch != batches_.end(); ++batch) {
      if (batch->id == id) {
        Batch taken = std::move(*batch);
        batches_.erase(batch);
        return taken;
      }
    }
    return {};
  }

 private:
  std::vector<Batch> batches_;  // by id
  std::uint64_t next_id_ = 1;
};

}  // namespace tierpool
