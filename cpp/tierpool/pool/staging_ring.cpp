#include "tierpool/pool/staging_ring.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/device_registry.hpp"

namespace tierpool {
namespace {

[[noreturn]] void fail(std::uint64_t bytes, const char* reason) {
  throw DeviceError("Cannot copy " + std::to_string(bytes) + " bytes through pinned memory: " + reason);
}

void refuse_capture(DeviceStreams& streams, StreamHandle stream, std::uint64_t bytes) {
  if (streams.is_capturing(stream)) {
    fail(bytes,
         "the stream is being captured into a graph, and pageable memory cannot be part of one; copy from or "
         "to a buffer of a pinned pool");
  }
}

}  // namespace

/// A slot that goes back by itself.
class StagingRing::Taken {
 public:
  Taken(StagingRing& ring, Slot& slot) noexcept : ring_(&ring), slot_(&slot) {}
  Taken(Taken&& other) noexcept : ring_(other.ring_), slot_(std::exchange(other.slot_, nullptr)) {}
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  Taken& operator=(Taken&&) = delete;
  ~Taken() {
    if (slot_ != nullptr) {
      ring_->give_back(*slot_);
    }
  }

  [[nodiscard]] std::uint64_t address() const noexcept { return slot_->memory.allocation().address; }

  /// Waits until no copy reads or writes the slot.
  void wait(DeviceStreams& streams, std::uint64_t bytes) const {
    if (slot_->event == kNoEvent) {
      slot_->event = streams.create_event();
      if (slot_->event == kNoEvent) {
        fail(bytes, "the device has no event left");
      }
    } else if (!streams.synchronize_event(slot_->event)) {
      fail(bytes, "the device has failed, or one of its streams is being captured");
    }
  }

  void copy_async(DeviceStreams& streams, std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                  StreamHandle stream) const {
    streams.copy_async(destination, source, bytes, stream);
    // Unrecorded, the slot would be used again under the copy.
    if (!streams.record_event(slot_->event, stream) && !streams.synchronize_stream(stream)) {
      fail(bytes, "the stream is gone");
    }
  }

 private:
  StagingRing* ring_;
  Slot* slot_;
};

StagingRing::StagingRing(std::shared_ptr<MemoryPool> pinned) : pinned_(std::move(pinned)) {
  for (Slot& slot : slots_) {
    slot.memory = Buffer(*pinned_, pinned_->allocate(kSlotBytes));
  }
}

// In turn, so that the slot whose copy was enqueued first comes first.
StagingRing::Slot* StagingRing::take_if_free() noexcept {
  const std::lock_guard lock(mutex_);
  for (std::size_t step = 0; step < kSlotCount; ++step) {
    Slot& slot = slots_[(next_ + step) % kSlotCount];
    if (!slot.busy) {
      slot.busy = true;
      next_ = (next_ + step + 1) % kSlotCount;
      return &slot;
    }
  }
  return nullptr;
}

StagingRing::Slot* StagingRing::take() {
  while (true) {
    if (Slot* slot = take_if_free(); slot != nullptr) {
      return slot;
    }
    std::unique_lock lock(mutex_);
    given_back_.wait(lock, [this] { return !std::ranges::all_of(slots_, &Slot::busy); });
  }
}

void StagingRing::give_back(Slot& slot) noexcept {
  {
    const std::lock_guard lock(mutex_);
    slot.busy = false;
  }
  given_back_.notify_one();
}

void StagingRing::copy_in(DeviceStreams& streams, std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                          StreamHandle stream) {
  refuse_capture(streams, stream, bytes);
  for (std::uint64_t done = 0; done < bytes; done += kSlotBytes) {
    const std::uint64_t length = std::min(kSlotBytes, bytes - done);
    const Taken slot(*this, *take());
    slot.wait(streams, bytes);
    std::memcpy(pointer_at(slot.address()), pointer_at(source + done), length);
    slot.copy_async(streams, destination + done, slot.address(), length, stream);
  }
}

void StagingRing::copy_out(DeviceStreams& streams, std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                           StreamHandle stream) {
  refuse_capture(streams, stream, bytes);
  std::optional<Taken> before;
  std::uint64_t written = 0;
  const auto write = [&](const Taken& slot) {
    const std::uint64_t length = std::min(kSlotBytes, bytes - written);
    slot.wait(streams, bytes);
    std::memcpy(pointer_at(destination + written), pointer_at(slot.address()), length);
    written += length;
  };
  for (std::uint64_t done = 0; done < bytes; done += kSlotBytes) {
    // The device fills one slot while the processor empties the one before. A thread that holds one must not wait for
    // another: all slots could be held so.
    Slot* free_slot = before ? take_if_free() : take();
    if (free_slot == nullptr) {
      write(*before);
      before.reset();
      free_slot = take();
    }
    Taken slot(*this, *free_slot);
    slot.wait(streams, bytes);
    slot.copy_async(streams, slot.address(), source + done, std::min(kSlotBytes, bytes - done), stream);
    if (before) {
      write(*before);
      before.reset();
    }
    before.emplace(std::move(slot));
  }
  if (before) {
    write(*before);
  }
}

StagingRing& staging_ring_of(Device& device) {
  static std::mutex mutex;
  static auto* rings = new std::map<std::string, StagingRing*>;  // never ends: the driver may end first
  const std::lock_guard lock(mutex);
  StagingRing*& ring = (*rings)[device.name()];
  if (ring == nullptr) {
    PoolConfig config;
    config.heap_size_bytes = StagingRing::kBytes;
    config.num_heaps = 1;
    config.warmup_bytes = {};
    config.magazines = false;
    ring = new StagingRing(MemoryPool::create(config, make_device("pinned")));
  }
  return *ring;
}

}  // namespace tierpool
