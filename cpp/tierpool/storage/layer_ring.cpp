#include "tierpool/storage/layer_ring.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool {

std::vector<std::uint8_t> interleave_pinned(std::uint32_t layer_count, std::uint32_t pinned_count) {
  std::vector<std::uint8_t> is_pinned(layer_count);
  for (std::uint64_t layer = 0; layer < layer_count; ++layer) {
    // The line from (0, 0) to (layer_count, pinned_count) steps up at the pinned layers.
    const std::uint64_t before = layer * pinned_count / layer_count;
    is_pinned[layer] = (layer + 1) * pinned_count / layer_count > before ? 1 : 0;
  }
  return is_pinned;
}

LayerRing::LayerRing(UnitLoader& loader, SlotPool& slots, SlotBinding& binding, std::vector<UnitId> layers,
                     std::uint32_t depth, const Clock& clock)
    : loader_(loader), slots_(slots), binding_(binding), clock_(clock), layers_(std::move(layers)) {
  const auto layer_count = static_cast<std::uint32_t>(layers_.size());
  const bool all_fit = slots.slot_count() >= layer_count;
  if (!all_fit && (depth == 0 || depth > slots.slot_count())) {
    throw ConfigError("A ring of " + std::to_string(depth) + " slots cannot be made from " +
                      std::to_string(slots.slot_count()) + ": use 1 up to that many");
  }
  is_pinned_ = interleave_pinned(layer_count, all_fit ? layer_count : slots.slot_count() - depth);
  for (std::uint32_t layer = 0; layer < layer_count; ++layer) {
    streamed_before_.push_back(streamed_count());
    if (is_pinned_[layer] == 0) {
      streamed_.push_back(layers_[layer]);
    }
  }
  pinned_.resize(layer_count - streamed_.size());
  ring_.resize(all_fit ? 0 : depth);
  if (slots.free_count() < pinned_.size() + ring_.size()) {
    throw ConfigError("Only " + std::to_string(slots.free_count()) + " of " + std::to_string(slots.slot_count()) +
                      " slots are free: a ring needs a slot pool of its own");
  }
  for (Place& place : pinned_) {
    place.slot = slots.take().value();
  }
  for (Place& place : ring_) {
    place.slot = slots.take().value();
  }
}

LayerRing::~LayerRing() { close(); }

void LayerRing::start() {
  loader_.reader().require_own_process();  // before the lock, which a thread of the parent may have held
  std::unique_lock<std::mutex> lock(mutex_);
  recover(lock);
  std::size_t next = 0;
  for (std::uint32_t layer = 0; layer < layers_.size(); ++layer) {
    if (is_pinned_[layer] != 0 && !pinned_[next++].has_unit) {
      begin(pinned_[next - 1], layers_[layer], ReadPriority::demand);
    }
  }
  for (Place& place : pinned_) {
    make_readable(place, lock);
  }
  if (!ring_.empty()) {
    advance_to(position_, lock);
  }
}

void LayerRing::enter(std::uint32_t layer) {
  if (layer >= layers_.size()) {
    throw std::out_of_range("There is no layer " + std::to_string(layer) + ": there are " +
                            std::to_string(layers_.size()));
  }
  loader_.reader().require_own_process();  // before the lock, which a thread of the parent may have held
  std::unique_lock<std::mutex> lock(mutex_);
  recover(lock);
  const std::uint64_t bytes = loader_.units().unit_bytes(layers_[layer]);
  ++statistics_.requests;
  statistics_.requested_bytes += bytes;
  if (!ring_.empty()) {
    advance_to(next_position(layer), lock);
  }
  if (is_pinned_[layer] != 0) {
    // Pinned layers come one by one, so the place of this one is the number of those in front of it.
    Place& place = pinned_[layer - streamed_before_[layer]];
    if (!place.is_shown) {
      throw Error("Layer " + std::to_string(layer) + " was not loaded: start() has to succeed first");
    }
    ++statistics_.ready;
    statistics_.reused_bytes += bytes;
    return;
  }
  Place& current = place(position_);
  statistics_.ready += current.read == nullptr || loader_.reader().is_finished(current.read) ? 1 : 0;
  make_readable(current, lock);
}

void LayerRing::cancel() noexcept {
  if (loader_.reader().is_foreign_process()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  is_broken_off_ = true;
  for (std::vector<Place>* places : {&pinned_, &ring_}) {
    for (const Place& place : *places) {
      if (place.read != nullptr) {
        loader_.reader().cancel(place.read);
      }
    }
  }
}

void LayerRing::close() noexcept {
  if (loader_.reader().is_foreign_process()) {
    return;  // the lock may be held by a thread that is not here
  }
  cancel();
  std::unique_lock<std::mutex> lock(mutex_);
  if (std::exchange(closed_, true)) {
    return;
  }
  std::string failure;
  for (std::vector<Place>* places : {&pinned_, &ring_}) {
    for (Place& place : *places) {
      try {
        empty(place, lock);
        slots_.give_back(place.slot);
      } catch (const std::exception& error) {
        failure = error.what();  // its slot stays taken: something may still be seen through it
      }
    }
  }
  lock.unlock();
  if (!failure.empty()) {
    log(LogLevel::error, "Closing the layer ring: " + failure);
  }
}

RingStatistics LayerRing::statistics() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return statistics_;
}

/// Makes nothing of reads that were cancelled, or begun before one failed, so that all is read anew.
void LayerRing::recover(std::unique_lock<std::mutex>& lock) {
  if (closed_) {
    throw CancelledError("The layer ring is closed");
  }
  if (std::exchange(is_broken_off_, false)) {
    for (std::vector<Place>* places : {&pinned_, &ring_}) {
      for (Place& place : *places) {
        if (place.read != nullptr) {
          empty(place, lock);
        }
      }
    }
  }
}

/// The first position from the current one on whose layer is not in front of `layer`.
std::uint64_t LayerRing::next_position(std::uint32_t layer) const noexcept {
  const std::uint64_t current = position_ % streamed_.size();
  const std::uint64_t wanted = streamed_before_[layer] % streamed_.size();
  return position_ + (wanted + streamed_.size() - current) % streamed_.size();
}

/// Gives up what is in front of `position` and begins with what is behind it, as far as the ring reaches.
void LayerRing::advance_to(std::uint64_t position, std::unique_lock<std::mutex>& lock) {
  const std::uint64_t end = position + ring_.size();
  position_ = position;
  // All at once, before the first of them is waited for.
  for (std::uint64_t next = position; next < end; ++next) {
    if (place(next).read != nullptr && place(next).unit != unit_at(next)) {
      loader_.reader().cancel(place(next).read);
    }
  }
  for (std::uint64_t next = position; next < end; ++next) {
    Place& place = this->place(next);
    const ReadPriority priority = next == position ? ReadPriority::demand : ReadPriority::prefetch;
    if (place.has_unit && place.unit != unit_at(next)) {
      empty(place, lock);
    }
    if (!place.has_unit) {
      begin(place, unit_at(next), priority);
    } else if (place.read != nullptr && priority == ReadPriority::demand) {
      loader_.reader().join(place.read, priority);
    }
  }
}

/// Hides what a slot shows, once nothing writes to it any more.
void LayerRing::empty(Place& place, std::unique_lock<std::mutex>& lock) {
  if (place.read != nullptr) {
    const ReadHandle read = place.read;
    loader_.reader().cancel(read);
    lock.unlock();
    static_cast<void>(loader_.reader().wait(read));
    lock.lock();
    place.read = nullptr;
  }
  if (place.is_shown) {
    binding_.unbind(place.unit);
    place.is_shown = false;
  }
  place.has_unit = false;
}

void LayerRing::begin(Place& place, UnitId unit, ReadPriority priority) {
  place.read = loader_.load(unit, place.slot, priority);
  place.unit = unit;
  place.has_unit = true;
}

void LayerRing::make_readable(Place& place, std::unique_lock<std::mutex>& lock) {
  if (place.read != nullptr) {
    const ReadHandle read = place.read;
    const std::uint64_t began_ns = clock_.now_ns();
    lock.unlock();
    const bool is_complete = loader_.reader().wait(read) == ReadOutcome::complete;
    lock.lock();
    statistics_.stall_ns += clock_.now_ns() - began_ns;
    place.read = nullptr;
    place.has_unit = is_complete;
    if (!is_complete) {
      is_broken_off_ = true;  // what ails the disk may have met the other reads too, and be over when they are needed
    }
    loader_.reader().require_complete(read);
    statistics_.read_bytes += loader_.units().unit_bytes(place.unit);
  }
  if (!place.is_shown) {
    binding_.bind(place.unit, place.slot);
    place.is_shown = true;
  }
}

}  // namespace tierpool
