#pragma once

#include <mutex>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tierpool/base/logging.hpp"

namespace tierpool::testing {

struct LogRecord {
  LogLevel level;
  std::string message;

  bool operator==(const LogRecord&) const = default;
  friend void PrintTo(const LogRecord& record, std::ostream* stream) {
    *stream << "level " << static_cast<int>(record.level) << ": " << record.message;
  }
};

/// Collects the log records of its lifetime; standard error gets them again afterwards. One at a time. Records may
/// come from any thread.
class CapturedLog {
 public:
  CapturedLog() {
    set_log_sink([this](LogLevel level, std::string_view message) {
      const std::lock_guard lock(mutex_);
      records_.push_back({level, std::string(message)});
    });
  }
  ~CapturedLog() { set_log_sink(nullptr); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;

  [[nodiscard]] std::vector<LogRecord> records() const {
    const std::lock_guard lock(mutex_);
    return records_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<LogRecord> records_;
};

}  // namespace tierpool::testing
