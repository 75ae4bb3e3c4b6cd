#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace tierpool {

enum class LogLevel { debug, info, warning, error };

/// Receives every record. Called on the logging thread, with no tierpool lock held; must not throw.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces where records go; an empty sink stands for standard error, the default. Not to be called while other
/// threads log.
void set_log_sink(LogSink sink);

/// Emits one record. May block or call foreign code, so it is never called with a lock held. Thread-safe, never throws.
void log(LogLevel level, std::string_view message) noexcept;

}  // namespace tierpool
