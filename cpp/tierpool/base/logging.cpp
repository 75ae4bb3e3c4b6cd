#include "tierpool/base/logging.hpp"

// The only place that includes spdlog: it costs seconds of compile time wherever it appears.
#include <spdlog/details/console_globals.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <utility>

#include "tierpool/base/fork_handler.hpp"

namespace tierpool {
namespace {

// No mutex of spdlog's own: a sink that takes a foreign lock (Python's) under one would deadlock.
class CallbackSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  explicit CallbackSink(LogSink callback) : callback_(std::move(callback)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    switch (message.level) {
      case spdlog::level::trace:
      case spdlog::level::debug:
        return callback_(LogLevel::debug, text);
      case spdlog::level::info:
        return callback_(LogLevel::info, text);
      case spdlog::level::warn:
        return callback_(LogLevel::warning, text);
      default:
        return callback_(LogLevel::error, text);
    }
  }
  void flush_() override {}

  LogSink callback_;
};

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// Leaked on purpose: buffers that outlive static destruction may still log.
spdlog::logger& logger() {
  static auto* instance = [] {
    auto* created = new spdlog::logger("tierpool", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_level(spdlog::level::debug);
    // The default sink's mutex, so that the child of a fork does not find it held.
    static auto* fork_handler = new ForkHandler(
        ForkHandler::Rank::log, [] { spdlog::details::console_mutex::mutex().lock(); },
        [] { spdlog::details::console_mutex::mutex().unlock(); });
    static_cast<void>(fork_handler);
    return created;
  }();
  return *instance;
}

// Made when the library is loaded: a fork in the middle of a first use would leave the child with half a logger.
[[maybe_unused]] const spdlog::logger& logger_at_load = logger();

}  // namespace

void set_log_sink(LogSink sink) {
  if (sink) {
    logger().sinks() = {std::make_shared<CallbackSink>(std::move(sink))};
  } else {
    logger().sinks() = {std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  }
}

void log(LogLevel level, std::string_view message) noexcept {
  // spdlog reports its own failures through its error handler and throws none of them.
  logger().log(spdlog_level(level), spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace tierpool
