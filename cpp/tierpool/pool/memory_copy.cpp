#include "tierpool/pool/memory_copy.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/parallel.hpp"

namespace tierpool {
namespace {

/// The end whose device runs the copy: the one out of the processor's reach, or else one that has streams at all.
const CopyEnd& running_end(const CopyEnd& destination, const CopyEnd& source) noexcept {
  if (destination.is_on_host() != source.is_on_host()) {
    return destination.is_on_host() ? source : destination;
  }
  return destination.streams() == nullptr ? source : destination;
}

/// Several readers: the page cache gives one of them a fraction of what memory takes.
void read_into_host(std::uint64_t destination, const CopyEnd& source, std::uint64_t bytes) {
  const std::size_t threads = std::min<std::size_t>(kMaxParallel, std::max(1U, std::thread::hardware_concurrency()));
  for_each_piece(bytes, StagingRing::kSlotBytes, threads, [&](std::uint64_t offset, std::uint64_t length) {
    source.file->read(source.address + offset, length, pointer_at(destination + offset));
  });
}

void copy_without_streams(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes,
                          const CopyEnd& running) {
  if (destination.is_on_host() && source.is_on_host()) {
    if (source.file != nullptr) {
      read_into_host(destination.address, source, bytes);
      return;
    }
    std::memmove(pointer_at(destination.address), pointer_at(source.address), bytes);
    return;
  }
  if (destination.is_on_host() != source.is_on_host()) {
    throw DeviceError("Cannot copy " + std::to_string(bytes) +
                      " bytes: nothing moves bytes between the host and device '" + running.pool->device().name() +
                      "'");
  }
  destination.pool->device().copy(destination.address, source.address, bytes);
}

/// Whether the bytes have to go through pinned memory, so that the device can fetch them in a stream's order.
bool needs_staging(const CopyEnd& destination, const CopyEnd& source) noexcept {
  return (destination.pool == nullptr && !source.is_on_host()) || (source.pool == nullptr && !destination.is_on_host());
}

void enqueue(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes, Device& device,
             StreamHandle stream, FindStaging find_staging) {
  if (!destination.is_on_host() && !source.is_on_host() && source.pool->device().name() != device.name()) {
    device.streams()->copy_from_device_async(destination.address, source.address, bytes, stream, *source.streams());
  } else if (!needs_staging(destination, source)) {
    device.streams()->copy_async(destination.address, source.address, bytes, stream);
  } else if (destination.pool == nullptr) {
    find_staging(device)->copy_out(destination.address, source.address, bytes, stream);
  } else {
    find_staging(device)->copy_in(
        destination.address,
        [&source](std::uint64_t offset, std::uint64_t length, void* slot) {
          if (source.file != nullptr) {
            source.file->read(source.address + offset, length, slot);
          } else {
            std::memcpy(slot, pointer_at(source.address + offset), length);
          }
        },
        bytes, stream);
  }
}

void order_after_owners(const MemoryPool& running, StreamHandle stream, const CopyEnd& destination,
                        const CopyEnd& source) {
  for (const CopyEnd* end : {&destination, &source}) {
    if (end->is_on_host()) {
      continue;
    }
    if (end->pool->device().name() == running.device().name()) {
      end->pool->order_after_own(stream);
      continue;
    }
    end->streams()->require_stream(kDefaultStream);  // its context may have gone, and the addresses with it
    if (!end->streams()->synchronize_device()) {     // the handle means another stream there
      throw DeviceError("Cannot wait for device '" + end->pool->device().name() + "' to copy from or to it");
    }
  }
}

/// "1" of "cuda:1" and "pinned:1", "0" of a name without a number.
std::string_view index_of(const Device& device) noexcept {
  const std::string_view name = device.name();
  const std::size_t colon = name.find(':');
  return colon == std::string_view::npos ? "0" : name.substr(colon + 1);
}

/// The memory of each end is kept by a stream of its own device, and the default streams have the same names on all.
void require_one_device(const CopyEnd& destination, const CopyEnd& source, StreamHandle stream) {
  if (destination.streams() == nullptr || source.streams() == nullptr ||
      index_of(destination.pool->device()) == index_of(source.pool->device())) {
    return;
  }
  throw DeviceError("Cannot copy in the order of stream " + std::to_string(stream) + ": it is of one device, and '" +
                    source.pool->device().name() + "' and '" + destination.pool->device().name() +
                    "' are memory for two; take pinned memory of the same one (device='pinned:1' for cuda:1), or leave "
                    "the stream out");
}

void require_devices(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes) {
  for (const CopyEnd* end : {&destination, &source}) {
    if (end->pool != nullptr && end->pool->is_closed()) {
      end->pool->require_device("copy " + std::to_string(bytes) + " bytes");
    }
  }
}

}  // namespace

void copy_memory(const CopyEnd& destination, const CopyEnd& source, std::uint64_t bytes,
                 std::optional<StreamHandle> stream, FindStaging find_staging) {
  if (bytes == 0) {
    return;
  }
  require_devices(destination, source, bytes);
  if (source.file != nullptr) {
    source.file->require(source.address, bytes);
  }
  const CopyEnd& running = running_end(destination, source);
  DeviceStreams* streams = running.streams();
  const bool both_on_host = destination.is_on_host() && source.is_on_host();
  if (streams == nullptr || (both_on_host && (!stream || source.file != nullptr))) {
    if (stream) {
      throw DeviceError("Cannot copy in the order of stream " + std::to_string(*stream) +
                        ": the processor makes this one, and has no streams; leave the stream out");
    }
    copy_without_streams(destination, source, bytes, running);
    return;
  }
  const StreamHandle order = stream ? *stream : running.pool->stream_here();
  // Also where the context is gone: staging made anew would copy to addresses that are nobody's any more.
  streams->require_stream(order);
  if (stream) {
    require_one_device(destination, source, *stream);
  } else {
    order_after_owners(*running.pool, order, destination, source);
  }
  try {
    enqueue(destination, source, bytes, running.pool->device(), order, find_staging);
  } catch (...) {
    if (!stream) {  // what was enqueued before must not arrive later
      static_cast<void>(streams->synchronize_stream(order));
    }
    throw;
  }
  if (!stream && !streams->synchronize_stream(order)) {
    throw DeviceError("A copy of " + std::to_string(bytes) + " bytes on device '" + running.pool->device().name() +
                      "' did not end: the device has failed, or one of its streams is being captured");
  }
}

}  // namespace tierpool
