#include "tierpool/pool/staging_ring.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/parallel.hpp"
#include "tierpool/device/device_registry.hpp"

namespace tierpool {
namespace {

constexpr const char* kFailed = "the device has failed, or one of its streams is being captured";

[[noreturn]] void fail(std::uint64_t bytes, const char* reason) {
  throw DeviceError("Cannot copy " + std::to_string(bytes) + " bytes through pinned memory: " + reason);
}

}  // namespace

/// A slot that goes back by itself.
class StagingRing::Taken {
 public:
  Taken(StagingRing& ring, Slot& slot) noexcept : ring_(&ring), slot_(&slot) {}
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  ~Taken() { ring_->give_back(*slot_); }

  [[nodiscard]] std::uint64_t address() const noexcept { return slot_->memory.allocation().address; }

  /// Waits until no copy reads or writes the slot.
  void wait(std::uint64_t bytes) const {
    if (slot_->event == kNoEvent) {
      slot_->event = ring_->streams_.create_event();
      if (slot_->event == kNoEvent) {
        fail(bytes, "the device has no event left");
      }
    } else if (!ring_->streams_.synchronize_event(slot_->event)) {
      fail(bytes, kFailed);
    }
  }

  void copy_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes, StreamHandle stream) const {
    DeviceStreams& streams = ring_->streams_;
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

StagingRing::StagingRing(std::shared_ptr<MemoryPool> pinned)
    : pinned_(std::move(pinned)), streams_(*pinned_->device().streams()) {
  for (Slot& slot : slots_) {
    slot.memory = Buffer(*pinned_, pinned_->allocate(kSlotBytes));
  }
}

StagingRing::~StagingRing() {
  for (Slot& slot : slots_) {
    if (slot.event != kNoEvent) {
      static_cast<void>(streams_.synchronize_event(slot.event));  // without a context nothing is under way
      streams_.destroy_event(slot.event);
    }
  }
}

// The first slot is the first to have an event.
bool StagingRing::works() noexcept {
  const std::lock_guard lock(mutex_);
  const EventHandle event = slots_.front().busy ? kNoEvent : slots_.front().event;
  return event == kNoEvent || streams_.query_event(event) != EventState::failed;
}

// In turn, so that the slot whose copy was enqueued first comes first.
StagingRing::Slot& StagingRing::take() {
  std::unique_lock lock(mutex_);
  given_back_.wait(lock, [this] { return !std::ranges::all_of(slots_, &Slot::busy); });
  while (slots_[next_].busy) {
    next_ = (next_ + 1) % kSlotCount;
  }
  Slot& slot = slots_[next_];
  slot.busy = true;
  next_ = (next_ + 1) % kSlotCount;
  return slot;
}

void StagingRing::give_back(Slot& slot) noexcept {
  {
    const std::lock_guard lock(mutex_);
    slot.busy = false;
  }
  given_back_.notify_one();
}

void StagingRing::refuse_capture(StreamHandle stream, std::uint64_t bytes) {
  if (streams_.is_capturing(stream)) {
    fail(bytes,
         "the stream is being captured into a graph, and pageable memory cannot be part of one; copy from or "
         "to a buffer of a pinned pool");
  }
}

void StagingRing::copy_in(std::uint64_t destination, const FillPiece& fill, std::uint64_t bytes, StreamHandle stream) {
  refuse_capture(stream, bytes);
  move_pieces(bytes, stream, [&](const Taken& slot, std::uint64_t offset, std::uint64_t length) {
    slot.wait(bytes);
    fill(offset, length, pointer_at(slot.address()));
    slot.copy_async(destination + offset, slot.address(), length, stream);
  });
}

void StagingRing::copy_out(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes, StreamHandle stream) {
  refuse_capture(stream, bytes);
  // Here, and not on every thread below: waiting takes a processor.
  if (!streams_.synchronize_stream(stream)) {
    fail(bytes, kFailed);
  }
  move_pieces(bytes, stream, [&](const Taken& slot, std::uint64_t offset, std::uint64_t length) {
    slot.wait(bytes);
    slot.copy_async(slot.address(), source + offset, length, stream);
    slot.wait(bytes);
    std::memcpy(pointer_at(destination + offset), pointer_at(slot.address()), length);
  });
}

/// Several threads, each with a piece in a slot at a time: while some wait for the device, others move bytes. No thread
/// that holds a slot waits for another one.
template <typename Move>
void StagingRing::move_pieces(std::uint64_t bytes, StreamHandle stream, const Move& move) {
  // This handle names another stream on each thread.
  const std::uint64_t most = stream == kPerThreadStream ? 1 : std::max(2U, std::thread::hardware_concurrency());
  for_each_piece(bytes, kSlotBytes, std::min(most, kMaxThreads), [&](std::uint64_t offset, std::uint64_t length) {
    const Taken slot(*this, take());
    move(slot, offset, length);
  });
}

std::shared_ptr<StagingRing> staging_ring_of(Device& device) {
  static std::mutex mutex;
  static auto* rings = new std::map<std::string, std::shared_ptr<StagingRing>>;  // never ends: the driver may end first
  const std::lock_guard lock(mutex);
  std::shared_ptr<StagingRing>& ring = (*rings)[device.name()];
  if (ring == nullptr || !ring->works()) {
    PoolConfig config;
    config.heap_size_bytes = StagingRing::kBytes;
    config.num_heaps = 1;
    config.warmup_bytes = {};
    config.magazines = false;
    const std::size_t colon = device.name().find(':');
    const std::string index = colon == std::string::npos ? "" : device.name().substr(colon);
    ring = std::make_shared<StagingRing>(MemoryPool::create(config, make_device("pinned" + index)));
  }
  return ring;
}

}  // namespace tierpool
