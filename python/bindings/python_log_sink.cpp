#include "python_log_sink.hpp"

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "gil.hpp"
#include "tierpool/base/fork_handler.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool::bindings {
namespace {

struct Record {
  LogLevel level;
  std::string message;
};

// A call from Python delivers its own records before it returns. What arises outside of one (in NumPy's allocator, on
// a thread without the GIL), or in a call too short to keep a queue, waits here for the next or for that call's end.
struct SharedQueue {
  std::mutex mutex;
  std::vector<Record> records;
  ForkHandler fork_handler{ForkHandler::Rank::log, [this] { mutex.lock(); }, [this] { mutex.unlock(); }};
};

// Leaked on purpose: buffers may log after static destruction.
SharedQueue& shared_queue() {
  static auto* instance = new SharedQueue;
  return *instance;
}

struct CallQueue {
  int depth = 0;
  std::vector<Record> records;
};

thread_local CallQueue call_queue;

void enqueue(LogLevel level, std::string_view message) {
  if (call_queue.depth != 0) {
    call_queue.records.push_back({level, std::string(message)});
    return;
  }
  SharedQueue& queue = shared_queue();
  const std::lock_guard<std::mutex> lock(queue.mutex);
  queue.records.push_back({level, std::string(message)});
  records_waiting.store(true, std::memory_order_release);
}

std::vector<Record> take_waiting() {
  std::vector<Record> records;
  if (records_waiting.load(std::memory_order_acquire)) {
    SharedQueue& queue = shared_queue();
    const std::lock_guard<std::mutex> lock(queue.mutex);
    records.swap(queue.records);
    records_waiting.store(false, std::memory_order_release);
  }
  return records;
}

int python_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return 10;
    case LogLevel::info:
      return 20;
    case LogLevel::warning:
      return 30;
    case LogLevel::error:
      return 40;
  }
  return 40;
}

void deliver(const std::vector<Record>& records) {
  const py::error_scope keep_pending_error;
  for (const Record& record : records) {
    try {
      const py::object log = py::module_::import("logging").attr("getLogger")("tierpool").attr("log");
      const auto arguments = py::make_tuple(python_level(record.level), "%s", record.message);
      const auto logged = py::reinterpret_steal<py::object>(call_python(log, arguments));
      if (!logged) {
        throw py::error_already_set();
      }
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("the logger 'tierpool'");
    } catch (const std::exception&) {
      // No memory for the record's text: what the caller asked for matters more than the record.
    }
  }
}

bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

}  // namespace

std::atomic<bool> records_waiting{false};

void install_python_log_sink() {
  static_cast<void>(shared_queue());
  set_log_sink(enqueue);
}

LogDelivery::LogDelivery() noexcept { ++call_queue.depth; }

LogDelivery::~LogDelivery() {
  --call_queue.depth;
  if (call_queue.depth != 0 || (call_queue.records.empty() && !records_waiting.load(std::memory_order_relaxed))) {
    return;
  }
  const std::vector<Record> waited = take_waiting();
  const std::vector<Record> own = std::exchange(call_queue.records, {});
  if (!is_finalizing()) {
    deliver(waited);
    deliver(own);
  }
}

}  // namespace tierpool::bindings
