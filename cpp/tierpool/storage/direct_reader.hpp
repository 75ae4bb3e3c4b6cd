#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/clock.hpp"
#include "tierpool/base/condition.hpp"
#include "tierpool/storage/read_source.hpp"

namespace tierpool {

/// Whole pages of a file and the host address they go to, a multiple of the page size too.
struct ReadPiece {
  std::uint32_t file_index = 0;
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t destination = 0;
};

enum class ReadPriority { demand, prefetch };
enum class ReadOutcome { complete, failed, cancelled };

/// A request on its way; belongs to the reader, and is shared by everyone who waits for it.
class Read {
 private:
  friend class DirectReader;

  // All guarded by the reader's mutex.
  std::vector<ReadPiece> pieces_;
  std::size_t next_piece_ = 0;
  std::uint32_t running_pieces_ = 0;
  ReadPriority priority_ = ReadPriority::demand;
  ReadOutcome outcome_ = ReadOutcome::complete;
  bool is_queued_ = false;
  std::size_t failed_piece_ = 0;
  ReadResult failure_;
  Condition finished_;
};

using ReadHandle = std::shared_ptr<Read>;

struct ReaderStatistics {
  std::uint64_t requests = 0;
  std::uint64_t joined = 0;           ///< requests that went along with a read on its way
  std::uint64_t failed = 0;           ///< reads
  std::uint64_t cancelled = 0;        ///< reads
  std::uint64_t requested_bytes = 0;  ///< of all reads, joined requests not counted again
  std::uint64_t read_bytes = 0;       ///< that came from the files
  std::uint64_t busy_ns = 0;          ///< time in which at least one thread was reading
};

/// A few threads that read whole pages into memory, demand before prefetch, each in order of request.
///
/// Every call may come from any thread; but when close() begins, none but wait(), cancel(), cancel_all() and
/// statistics() may be running, and afterwards requests are cancelled at once. A forked child has none of the threads:
/// there, requests and waits are cancelled, and statistics() may not be called.
class DirectReader {
 public:
  struct Options {
    std::uint32_t threads = 4;
    std::uint64_t piece_bytes = kMiB;  ///< the most that is read in one call
  };

  /// Throws ConfigError for no threads or pieces that are not whole 4 KiB, std::system_error when none can be started.
  /// The sources are named by their index; the clock outlives the reader.
  DirectReader(std::vector<std::shared_ptr<ReadSource>> sources, const Options& options, const Clock& clock);
  /// Ends as close() does.
  ~DirectReader();
  DirectReader(const DirectReader&) = delete;
  DirectReader& operator=(const DirectReader&) = delete;

  /// Begins to read all the pieces. Their destinations are written to until wait() has returned. Bytes behind the end
  /// of a file become zero, as in a mapping of it. Throws ConfigError for a piece that begins behind it or names no
  /// file.
  [[nodiscard]] ReadHandle submit(const std::vector<ReadPiece>& pieces, ReadPriority priority);
  /// A second request for what `read` fetches: nothing is read twice, and demand hurries a prefetch.
  void join(const ReadHandle& read, ReadPriority priority);
  /// No further piece is begun. Does nothing to a read that is complete.
  void cancel(const ReadHandle& read) noexcept;
  /// Blocks until no thread touches the destinations any more. Unless it says complete, their contents are undefined.
  [[nodiscard]] ReadOutcome wait(const ReadHandle& read) noexcept;
  [[nodiscard]] bool is_finished(const ReadHandle& read) noexcept;
  /// wait(), and ReadError or CancelledError with what error() says unless the read is complete.
  void require_complete(const ReadHandle& read);
  /// What went wrong with a read that failed or was cancelled, naming the file and the place.
  [[nodiscard]] std::string error(const ReadHandle& read);

  /// Cancels everything, also what is requested later.
  void cancel_all() noexcept;
  /// Cancels everything, waits for the calls that are under way, ends the threads. Does nothing the second time.
  void close() noexcept;

  /// Whether this process was forked from the one that has the threads.
  [[nodiscard]] bool is_foreign_process() const noexcept;
  /// Throws Error if so.
  void require_own_process() const;

  [[nodiscard]] ReaderStatistics statistics() const;
  [[nodiscard]] const ReadSource& source(std::uint32_t file_index) const { return *sources_.at(file_index); }

 private:
  struct Task {
    ReadHandle read;
    std::size_t index = 0;
  };
  void work() noexcept;
  [[nodiscard]] ReadResult read_piece(const ReadPiece& piece) noexcept;
  [[nodiscard]] std::vector<ReadPiece> cut(const std::vector<ReadPiece>& pieces) const;

  // All of these expect mutex_ to be held.
  [[nodiscard]] std::deque<ReadHandle>& queue(ReadPriority priority) noexcept {
    return queues_[static_cast<std::size_t>(priority)];
  }
  [[nodiscard]] bool has_work() const noexcept { return !queues_[0].empty() || !queues_[1].empty(); }
  [[nodiscard]] Task take_task() noexcept;
  void settle(const Task& task, const ReadResult& result) noexcept;
  void remove_from_queue(const ReadHandle& read) noexcept;
  void stop(Read& read, ReadOutcome outcome) noexcept;

  const std::vector<std::shared_ptr<ReadSource>> sources_;
  const Options options_;
  const Clock& clock_;
  const pid_t process_;
  mutable std::mutex mutex_;  // guards all below
  Condition work_available_;
  std::array<std::deque<ReadHandle>, 2> queues_;  // by priority: reads with pieces that no thread has taken
  bool closing_ = false;
  std::uint32_t running_ = 0;
  std::uint64_t busy_since_ns_ = 0;
  ReaderStatistics statistics_;
  std::vector<std::thread> threads_;
};

}  // namespace tierpool
