#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device/fake_cuda_driver.hpp"

// What the fake driver knows, and how its calls begin.

namespace tierpool::testing {

inline constexpr std::size_t kGranule = std::size_t{2} << 20;
inline constexpr std::size_t kPage = 4096;
inline constexpr CuResult kInvalidValue = 1;
inline constexpr CuResult kInvalidDevice = 101;
inline constexpr CuResult kInvalidHandle = 400;
inline constexpr CuResult kAlreadyRegistered = 712;
inline constexpr CuResult kNotRegistered = 713;
inline constexpr CuResult kCaptureUnsupported = 900;

struct FailureOrder {
  CuResult result = kCuSuccess;
  std::uint64_t after = 0;
  std::uint64_t times = 0;
};
struct Copy {
  CuAddress destination = 0;
  CuAddress source = 0;
  std::size_t bytes = 0;
};
struct Queue;
/// All that a queue was given up to here.
struct Position {
  Queue* queue = nullptr;
  std::uint64_t end = 0;
};
struct Operation {
  Copy copy;
  Position behind;
};
/// What a stream has still to do.
struct Queue {
  std::deque<Operation> operations;
  std::uint64_t done = 0;

  [[nodiscard]] Position position() { return {this, done + operations.size()}; }
};

struct Context {
  int device = 0;
  bool destroyed = false;
  Queue queue{};  // of its default stream
  unsigned long long id = 0;
};
struct Handle {
  std::size_t bytes = 0;
  int device = 0;
  int references = 1;  // its own and one for each mapping
};
struct Mapping {
  std::size_t bytes = 0;
  CuMemoryHandle handle = 0;
  std::set<int> accesses;  // the devices that may
};
struct Block {
  std::size_t bytes = 0;
  int device = 0;
};
struct Stream {
  Context* context = nullptr;
  unsigned long long id = 0;
  bool destroyed = false;
  bool capturing = false;
  bool blocking = false;  // ordered with the default stream
  Queue queue{};
};
struct Event {
  Position recorded;
};

struct State {
  Context* add_context(int device) {
    contexts.push_back(new Context{device, false, {}, next_context_id++});
    return contexts.back();
  }

  std::mutex mutex;
  int device_count = 2;
  int version = 12040;
  bool peers = true;
  bool hold_work = false;
  std::map<std::string, FailureOrder> failures;
  std::map<std::string, std::uint64_t> calls;
  unsigned long long next_context_id = 1;
  std::vector<Context*> contexts;  // kept when destroyed
  std::array<Context*, 2> primary{add_context(0), add_context(1)};
  std::array<int, 2> retained{};
  std::array<std::size_t, 2> used{};
  std::map<CuAddress, std::size_t> reserved;
  std::map<CuMemoryHandle, Handle> handles;
  CuMemoryHandle next_handle = 1;
  std::map<CuAddress, Mapping> mappings;
  std::map<CuAddress, Block> blocks;
  std::map<void*, std::size_t> host_blocks;
  std::map<char*, std::size_t> registered;
  std::set<Event*> events;
  std::set<Event*> events_gone;  // with their context; kept, as whoever has a handle may still use it
  std::vector<Stream*> streams;  // kept when destroyed, as handles outlive streams
  std::map<std::pair<Context*, int>, Queue> thread_queues;  // of default streams a thread, by its number
  int thread_count = 0;
  unsigned long long next_stream_id = 8;
  std::uint64_t misuse_count = 0;
};

// Leaked: the library is never closed, and threads may end late.
inline State& state() {
  static auto* instance = new State;
  return *instance;
}

inline thread_local std::vector<Context*> context_stack;
inline thread_local int capture_mode = 0;
inline thread_local int thread_number = 0;  // 0: not given yet
inline thread_local bool captures_thread_stream = false;

/// Stands where fake_cuda_hold_waits() holds waits. False when nobody ended that. Without the lock of the state.
[[nodiscard]] bool pass_gate();

inline CuResult misuse(CuResult result) {
  ++state().misuse_count;
  return result;
}

/// What an order to fail says to a call, which is counted.
inline CuResult begin(const char* name) {
  ++state().calls[name];
  FailureOrder& order = state().failures[name];
  if (order.after > 0) {
    --order.after;
    return kCuSuccess;
  }
  if (order.times == 0) {
    return kCuSuccess;
  }
  --order.times;
  return order.result;
}

/// The same for a call that needs a context.
inline CuResult begin_in_context(const char* name) {
  if (const CuResult ordered = begin(name); ordered != kCuSuccess) {
    return ordered;
  }
  if (context_stack.empty()) {
    return misuse(kCuInvalidContext);
  }
  return context_stack.back()->destroyed ? kCuContextIsDestroyed : kCuSuccess;
}

inline int current_device() { return context_stack.back()->device; }

inline bool take(int device, std::size_t bytes) {
  std::size_t& used = state().used[static_cast<std::size_t>(device)];
  if (bytes > kFakeCudaBytes - used) {
    return false;
  }
  used += bytes;
  return true;
}

inline void release(CuMemoryHandle handle) {
  const auto found = state().handles.find(handle);
  if (--found->second.references == 0) {
    state().used[static_cast<std::size_t>(found->second.device)] -= found->second.bytes;
    state().handles.erase(found);
  }
}

inline void* at(CuAddress address) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)); }
inline CuAddress address_of(void* pointer) { return static_cast<CuAddress>(reinterpret_cast<std::uintptr_t>(pointer)); }

/// Addresses without memory; 0 when there are none.
inline CuAddress map_addresses(std::size_t bytes, std::size_t alignment, int protection) {
  if (bytes > (std::size_t{1} << 46)) {
    return 0;
  }
  void* mapping = mmap(nullptr, bytes + alignment, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return 0;
  }
  const CuAddress first = address_of(mapping);
  const CuAddress address = (first + alignment - 1) / alignment * alignment;
  if (address > first) {
    munmap(mapping, address - first);
  }
  munmap(at(address + bytes), first + alignment - address);
  return address;
}

inline bool is_reserved(CuAddress address, std::size_t bytes) {
  const auto after = state().reserved.upper_bound(address);
  return after != state().reserved.begin() && address + bytes <= std::prev(after)->first + std::prev(after)->second;
}

/// Whether the range is a row of whole mappings.
inline bool is_whole_mappings(CuAddress address, std::size_t bytes) {
  const CuAddress end = address + bytes;
  while (address < end) {
    const auto found = state().mappings.find(address);
    if (found == state().mappings.end()) {
      return false;
    }
    address += found->second.bytes;
  }
  return address == end;
}

/// Whether a device reaches memory: all but that of virtual memory management which it was not given.
inline bool can_access(int device, CuAddress address) {
  const auto after = state().mappings.upper_bound(address);
  if (after == state().mappings.begin() || address >= std::prev(after)->first + std::prev(after)->second.bytes) {
    return true;
  }
  return std::prev(after)->second.accesses.count(device) != 0;
}

inline Stream* find_stream(CuStream stream) {
  const auto found = std::find(state().streams.begin(), state().streams.end(), static_cast<Stream*>(stream));
  return found == state().streams.end() || (*found)->destroyed ? nullptr : *found;
}

inline bool is_legacy(CuStream stream) { return address_of(stream) <= 1; }
inline bool is_special(CuStream stream) { return address_of(stream) <= 2; }

/// A stream that exists and is one of the current context. A real driver may crash over one that was destroyed.
inline CuResult check_stream(CuStream stream) {
  if (is_special(stream)) {
    return kCuSuccess;
  }
  const Stream* found = find_stream(stream);
  if (found == nullptr) {
    return misuse(kInvalidHandle);
  }
  return found->context == context_stack.back() ? kCuSuccess : kInvalidHandle;
}

/// Whether a stream of the current context is captured, of those ordered with the default stream or of all.
inline bool is_any_capturing(bool blocking_only) {
  const auto is_captured = [blocking_only](const Stream* stream) {
    return stream->capturing && !stream->destroyed && stream->context == context_stack.back() &&
           (stream->blocking || !blocking_only);
  };
  return (captures_thread_stream && !blocking_only) ||
         std::any_of(state().streams.begin(), state().streams.end(), is_captured);
}

/// Where a stream of the current context, which check_stream() knows, keeps its work.
inline Queue& queue_of(CuStream stream) {
  Context* context = context_stack.back();
  if (is_legacy(stream)) {
    return context->queue;
  }
  if (!is_special(stream)) {
    return static_cast<Stream*>(stream)->queue;
  }
  thread_number = thread_number == 0 ? ++state().thread_count : thread_number;
  return state().thread_queues[{context, thread_number}];
}

/// Runs what comes before, as late as that is allowed: other streams' work only as far as it is waited for.
inline void complete(const Position& position) {
  for (Queue* queue = position.queue; queue != nullptr && queue->done < position.end; ++queue->done) {
    const Operation next = queue->operations.front();
    complete(next.behind);
    if (next.copy.bytes != 0) {
      std::memcpy(at(next.copy.destination), at(next.copy.source), next.copy.bytes);
    }
    queue->operations.pop_front();
  }
}

inline bool is_complete(const Position& position) {
  return position.queue == nullptr || position.queue->done >= position.end;
}

inline void enqueue(Queue& queue, const Operation& operation) {
  queue.operations.push_back(operation);
  if (!state().hold_work) {
    complete(queue.position());
  }
}

template <typename Visit>
void for_each_queue(const Visit& visit) {
  for (Context* context : state().contexts) {
    visit(context, context->queue);
  }
  for (Stream* stream : state().streams) {
    visit(stream->context, stream->queue);
  }
  for (auto& [key, queue] : state().thread_queues) {
    visit(key.first, queue);
  }
}

inline void complete_all(const Context* context) {
  for_each_queue([context](const Context* owner, Queue& queue) {
    if (owner == context) {
      complete(queue.position());
    }
  });
}

// Every function of the driver takes the lock, asks for an order to fail, and checks its arguments.
#define FAKE_CUDA_BEGIN(how, name)                                 \
  const std::lock_guard lock(state().mutex);                       \
  if (const CuResult ordered = how(name); ordered != kCuSuccess) { \
    return ordered;                                                \
  }

}  // namespace tierpool::testing
