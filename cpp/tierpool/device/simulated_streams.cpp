#include "tierpool/device/simulated_streams.hpp"

#include <algorithm>
#include <iterator>
#include <new>
#include <string>
#include <utility>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/thread_number.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kDefaultStreamId = 0;  // inside: ids are told one higher, as 0 means none
constexpr StreamHandle kFirstHandle = 0x5000;

}  // namespace

SimulatedStreams::SimulatedStreams(Copy copy) : copy_(std::move(copy)) {
  static_cast<void>(add_stream(kDefaultStream));
}

void SimulatedStreams::require_stream(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  if (find(stream) == nullptr) {
    throw DeviceError("Stream " + std::to_string(stream) +
                      " is not a stream of device simulated: pass one that was made there and not destroyed");
  }
}

std::uint64_t SimulatedStreams::stream_id(StreamHandle stream) noexcept {
  const std::lock_guard lock(mutex_);
  const Stream* found = find(stream);
  misuse_count_ += found == nullptr ? 1 : 0;
  return found == nullptr ? 0 : found->id + 1;
}

bool SimulatedStreams::is_capturing(StreamHandle stream) noexcept {
  const std::lock_guard lock(mutex_);
  const Stream* found = find(stream);
  misuse_count_ += found == nullptr ? 1 : 0;
  return found != nullptr && found->capturing;
}

EventHandle SimulatedStreams::create_event() noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(StreamCall::create_event)) {
    return kNoEvent;
  }
  try {
    events_[next_event_] = {};
    return next_event_++;
  } catch (const std::bad_alloc&) {
    return kNoEvent;
  }
}

void SimulatedStreams::destroy_event(EventHandle event) noexcept {
  const std::lock_guard lock(mutex_);
  Event* found = find_event(event);
  if (found == nullptr) {
    return;
  }
  found->destroyed = true;
  if (found->open.empty() || found->captured) {
    events_.erase(event);
  }
}

bool SimulatedStreams::record_event(EventHandle event, StreamHandle stream) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(StreamCall::record_event)) {
    return false;
  }
  Event* found = find_event(event);
  Stream* target = find(stream);
  if (found == nullptr || target == nullptr) {
    misuse_count_ += target == nullptr ? 1 : 0;
    return false;
  }
  found->captured = target->capturing;
  if (target->capturing) {
    return true;
  }
  const Recording recording{.event = event, .number = found->recorded + 1};
  if (target->operations.empty() && !target->advancing) {  // as on a device: there is nothing to wait for
    found->recorded = recording.number;
    return true;
  }
  try {
    found->open.insert(recording.number);
    target->operations.push_back({.work = {}, .completes = recording, .waits_for = {}});
  } catch (const std::bad_alloc&) {
    return false;
  }
  found->recorded = recording.number;
  return true;
}

EventState SimulatedStreams::query_event(EventHandle event) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(StreamCall::query_event)) {
    return EventState::failed;
  }
  const Event* found = find_event(event);
  if (found == nullptr || found->captured) {
    misuse_count_ += found == nullptr ? 0 : 1;
    return EventState::failed;
  }
  return found->open.contains(found->recorded) ? EventState::pending : EventState::complete;
}

bool SimulatedStreams::wait_event(StreamHandle stream, EventHandle event) noexcept {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(StreamCall::wait_event)) {
    return false;
  }
  const Event* found = find_event(event);
  Stream* target = find(stream);
  if (found == nullptr || target == nullptr || found->captured != target->capturing) {
    misuse_count_ += target == nullptr || (found != nullptr && found->captured) ? 1 : 0;
    return false;
  }
  if (found->captured || !found->open.contains(found->recorded)) {
    return true;
  }
  const Recording recording{.event = event, .number = found->recorded};
  try {
    target->operations.push_back({.work = {}, .completes = {}, .waits_for = recording});
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool SimulatedStreams::synchronize_event(EventHandle event) noexcept {
  std::unique_lock lock(mutex_);
  const Event* found = find_event(event);
  if (calls_.count_and_fail(StreamCall::synchronize) || found == nullptr || found->captured) {
    misuse_count_ += found != nullptr && found->captured ? 1 : 0;
    return false;
  }
  const Recording recording{.event = event, .number = found->recorded};
  return run_until(lock, [&] { return is_complete(recording); });
}

bool SimulatedStreams::synchronize_stream(StreamHandle stream) noexcept {
  std::unique_lock lock(mutex_);
  Stream* found = find(stream);
  if (calls_.count_and_fail(StreamCall::synchronize) || found == nullptr || found->capturing) {
    misuse_count_ += found == nullptr ? 1 : 0;
    return false;
  }
  return run_until(lock, [&] { return found->operations.empty() && !found->advancing; });
}

bool SimulatedStreams::synchronize_device() noexcept {
  std::unique_lock lock(mutex_);
  const auto captures = [](const auto& entry) { return entry.second.capturing; };
  const bool invalidates = std::ranges::any_of(streams_, captures);
  misuse_count_ += invalidates ? 1 : 0;
  if (calls_.count_and_fail(StreamCall::synchronize) || invalidates) {
    return false;
  }
  return run_until(lock, [&] {
    return std::ranges::all_of(
        streams_, [](const auto& entry) { return entry.second.operations.empty() && !entry.second.advancing; });
  });
}

void SimulatedStreams::copy_async(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes,
                                  StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  if (calls_.count_and_fail(StreamCall::copy_async)) {
    throw DeviceError("Cannot copy " + std::to_string(bytes) + " bytes on device simulated: failure on demand");
  }
  Stream* found = find(stream);
  if (found == nullptr) {
    throw DeviceError("Cannot copy " + std::to_string(bytes) + " bytes on device simulated: it has no stream " +
                      std::to_string(stream));
  }
  if (copy_ && !found->capturing) {
    found->operations.push_back(
        {.work = [=, this] { copy_(destination, source, bytes); }, .completes = {}, .waits_for = {}});
  }
}

StreamHandle SimulatedStreams::create_stream() {
  const std::lock_guard lock(mutex_);
  StreamHandle handle = kFirstHandle;
  while (find(handle) != nullptr) {
    ++handle;
  }
  static_cast<void>(add_stream(handle));
  return handle;
}

void SimulatedStreams::destroy_stream(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  Stream* found = find(stream);
  if (found == nullptr || stream <= kPerThreadStream) {
    ++misuse_count_;
    return;
  }
  found->destroyed = true;
  found->capturing = false;
}

void SimulatedStreams::enqueue(StreamHandle stream, Work work) {
  const std::lock_guard lock(mutex_);
  Stream* found = find(stream);
  if (found == nullptr) {
    ++misuse_count_;
  } else if (!found->capturing) {
    found->operations.push_back({.work = std::move(work), .completes = {}, .waits_for = {}});
  }
}

bool SimulatedStreams::advance(StreamHandle stream) {
  std::unique_lock lock(mutex_);
  Stream* found = find(stream);
  if (found == nullptr || !can_advance(*found)) {
    return false;
  }
  run_next(lock, *found);
  return true;
}

bool SimulatedStreams::advance_any(std::uint64_t turn) {
  std::unique_lock lock(mutex_);
  return run_any(lock, turn);
}

void SimulatedStreams::begin_capture(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  Stream* found = find(stream);
  if (found == nullptr || found->id == kDefaultStreamId) {
    ++misuse_count_;  // the default stream cannot be captured
  } else {
    found->capturing = true;
  }
}

void SimulatedStreams::end_capture(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  if (Stream* found = find(stream); found != nullptr) {
    found->capturing = false;
  }
}

void SimulatedStreams::fail(StreamCall call, std::uint64_t after, std::uint64_t times) {
  const std::lock_guard lock(mutex_);
  calls_.fail(call, after, times);
}

void SimulatedStreams::recover() {
  const std::lock_guard lock(mutex_);
  calls_.recover();
}

std::uint64_t SimulatedStreams::queued_count() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  for (const auto& [id, stream] : streams_) {
    count += stream.operations.size();
  }
  return count;
}

std::uint64_t SimulatedStreams::event_count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint64_t>(
      std::ranges::count_if(events_, [](const auto& entry) { return !entry.second.destroyed; }));
}

std::uint64_t SimulatedStreams::call_count(StreamCall call) const {
  const std::lock_guard lock(mutex_);
  return calls_.count(call);
}

std::uint64_t SimulatedStreams::misuse_count() const {
  const std::lock_guard lock(mutex_);
  return misuse_count_;
}

std::uint64_t SimulatedStreams::add_stream(StreamHandle handle) {
  const std::uint64_t id = next_stream_id_++;
  streams_[id].id = id;
  streams_[id].handle = handle;
  return id;
}

SimulatedStreams::Stream* SimulatedStreams::find(StreamHandle stream) {
  if (stream == kDefaultStream || stream == kLegacyStream) {
    return &streams_[kDefaultStreamId];
  }
  if (stream == kPerThreadStream) {
    const auto [entry, added] = thread_stream_ids_.try_emplace(thread_number(), 0);
    entry->second = added ? add_stream(kPerThreadStream) : entry->second;
    return &streams_[entry->second];
  }
  const auto found = std::ranges::find_if(
      streams_, [&](const auto& entry) { return entry.second.handle == stream && !entry.second.destroyed; });
  return found == streams_.end() ? nullptr : &found->second;
}

SimulatedStreams::Event* SimulatedStreams::find_event(EventHandle event) noexcept {
  const auto found = events_.find(event);
  if (found == events_.end() || found->second.destroyed) {
    ++misuse_count_;
    return nullptr;
  }
  return &found->second;
}

bool SimulatedStreams::is_complete(const Recording& recording) const noexcept {
  const auto found = events_.find(recording.event);
  return found == events_.end() || !found->second.open.contains(recording.number);
}

bool SimulatedStreams::can_advance(const Stream& stream) const noexcept {
  if (stream.advancing || stream.operations.empty()) {
    return false;
  }
  const Operation& next = stream.operations.front();
  return !next.waits_for || is_complete(*next.waits_for);
}

void SimulatedStreams::complete(const Operation& operation) {
  if (!operation.completes) {
    return;
  }
  const auto found = events_.find(operation.completes->event);
  if (found == events_.end()) {
    return;
  }
  Event& event = found->second;
  event.open.erase(operation.completes->number);
  if (event.destroyed && event.open.empty()) {
    events_.erase(found);
  }
}

void SimulatedStreams::run_next(std::unique_lock<std::mutex>& lock, Stream& stream) {
  const Operation operation = std::move(stream.operations.front());
  stream.operations.pop_front();
  if (operation.work) {
    stream.advancing = true;
    lock.unlock();
    operation.work();
    lock.lock();
    stream.advancing = false;
  }
  complete(operation);
  advanced_.notify_all();
}

bool SimulatedStreams::run_any(std::unique_lock<std::mutex>& lock, std::uint64_t turn) {
  auto entry = std::next(streams_.begin(), static_cast<std::ptrdiff_t>(turn % streams_.size()));
  for (std::size_t tried = 0; tried < streams_.size(); ++tried) {
    if (can_advance(entry->second)) {
      run_next(lock, entry->second);
      return true;
    }
    entry = std::next(entry) == streams_.end() ? streams_.begin() : std::next(entry);
  }
  return false;
}

template <typename Done>
bool SimulatedStreams::run_until(std::unique_lock<std::mutex>& lock, Done done) {
  while (!done()) {
    if (run_any(lock, 0)) {
      continue;
    }
    const auto advances = [](const auto& entry) { return entry.second.advancing; };
    if (std::ranges::none_of(streams_, advances)) {
      return false;
    }
    advanced_.wait(lock);
  }
  return true;
}

}  // namespace tierpool
