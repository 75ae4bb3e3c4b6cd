#include "tierpool/storage/direct_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <system_error>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kSmallestPageBytes = 4 * kKiB;
constexpr const char* kForkedText = "This process was forked from the one that reads the weights: load them here";

// By ReadFault.
constexpr std::array<const char*, 5> kFaultTexts = {
    "", "", "the file ends there, before the size it had when it was opened: it is truncated, or was cut meanwhile",
    "the file was changed since it was opened: load it again",
    "the file was removed since it was opened: load it from its new place"};

std::string describe(const ReadResult& failure) {
  if (failure.fault == ReadFault::failed) {
    return std::generic_category().message(failure.error_number) + " (errno " + std::to_string(failure.error_number) +
           "): check the disk and its connection";
  }
  return kFaultTexts[static_cast<std::size_t>(failure.fault)];
}

}  // namespace

DirectReader::DirectReader(std::vector<std::shared_ptr<ReadSource>> sources, const Options& options, const Clock& clock)
    : sources_(std::move(sources)), options_(options), clock_(clock), process_(getpid()) {
  if (options.threads == 0 || options.piece_bytes == 0 || options.piece_bytes % kSmallestPageBytes != 0) {
    throw ConfigError("A reader needs at least one thread and pieces of whole 4 KiB, not " +
                      std::to_string(options.threads) + " threads and " + std::to_string(options.piece_bytes) +
                      " bytes");
  }
  threads_.reserve(options.threads);
  try {
    for (std::uint32_t i = 0; i < options.threads; ++i) {
      threads_.emplace_back([this] { work(); });
    }
  } catch (const std::system_error&) {
    // Fewer threads do the same work.
    if (threads_.empty()) {
      throw;
    }
  }
}

DirectReader::~DirectReader() { close(); }

void DirectReader::close() noexcept {
  if (is_foreign_process()) {
    // The threads stayed in the parent, and the lock may be one of theirs.
    for (std::thread& thread : threads_) {
      thread.detach();
    }
    threads_.clear();
    return;
  }
  cancel_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

void DirectReader::cancel_all() noexcept {
  if (is_foreign_process()) {
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    for (std::deque<ReadHandle>& reads : queues_) {
      while (!reads.empty()) {
        const ReadHandle read = reads.front();
        remove_from_queue(read);
        stop(*read, ReadOutcome::cancelled);
      }
    }
  }
  work_available_->notify_all();  // the threads end
}

ReadHandle DirectReader::submit(const std::vector<ReadPiece>& pieces, ReadPriority priority) {
  auto read = std::make_shared<Read>();
  read->pieces_ = cut(pieces);
  read->priority_ = priority;
  std::uint64_t bytes = 0;
  for (const ReadPiece& piece : read->pieces_) {
    bytes += piece.size_bytes;
  }
  if (is_foreign_process()) {
    read->outcome_ = ReadOutcome::cancelled;
    return read;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++statistics_.requests;
    if (closing_) {
      stop(*read, ReadOutcome::cancelled);
      return read;
    }
    if (!read->pieces_.empty()) {
      queue(priority).push_back(read);
      read->is_queued_ = true;
    }
    statistics_.requested_bytes += bytes;
  }
  if (read->pieces_.size() > 1) {
    work_available_->notify_all();
  } else {
    work_available_->notify_one();
  }
  return read;
}

std::vector<ReadPiece> DirectReader::cut(const std::vector<ReadPiece>& pieces) const {
  std::vector<ReadPiece> result;
  for (const ReadPiece& piece : pieces) {
    if (piece.file_index >= sources_.size() || piece.offset_bytes >= sources_[piece.file_index]->size_bytes()) {
      throw ConfigError("There is nothing to read at " + std::to_string(piece.offset_bytes) + " of file " +
                        std::to_string(piece.file_index));
    }
    for (std::uint64_t done = 0; done < piece.size_bytes; done += options_.piece_bytes) {
      result.push_back({piece.file_index, piece.offset_bytes + done,
                        std::min(options_.piece_bytes, piece.size_bytes - done), piece.destination + done});
    }
  }
  return result;
}

void DirectReader::join(const ReadHandle& read, ReadPriority priority) {
  if (is_foreign_process()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  ++statistics_.requests;
  ++statistics_.joined;
  if (priority == ReadPriority::demand && read->priority_ == ReadPriority::prefetch) {
    const bool was_queued = read->is_queued_;
    if (was_queued) {
      queue(ReadPriority::demand).push_back(read);  // before it leaves the other queue: this may throw
      remove_from_queue(read);
      read->is_queued_ = true;
    }
    read->priority_ = ReadPriority::demand;
  }
}

void DirectReader::cancel(const ReadHandle& read) noexcept {
  if (is_foreign_process()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (read->is_queued_) {
    remove_from_queue(read);
    stop(*read, ReadOutcome::cancelled);
  }
}

ReadOutcome DirectReader::wait(const ReadHandle& read) noexcept {
  if (is_foreign_process()) {
    return ReadOutcome::cancelled;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  read->finished_->wait(lock, [&] { return !read->is_queued_ && read->running_pieces_ == 0; });
  return read->outcome_;
}

bool DirectReader::is_finished(const ReadHandle& read) noexcept {
  if (is_foreign_process()) {
    return true;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  return !read->is_queued_ && read->running_pieces_ == 0;
}

void DirectReader::require_complete(const ReadHandle& read) {
  switch (wait(read)) {
    case ReadOutcome::complete:
      return;
    case ReadOutcome::failed:
      throw ReadError(error(read));
    case ReadOutcome::cancelled:
      throw CancelledError(error(read));
  }
}

std::string DirectReader::error(const ReadHandle& read) {
  if (is_foreign_process()) {
    return kForkedText;
  }
  ReadPiece piece;
  ReadResult failure;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (read->outcome_ != ReadOutcome::failed) {
      return read->outcome_ == ReadOutcome::cancelled ? "The read was cancelled" : "";
    }
    piece = read->pieces_[read->failed_piece_];
    failure = read->failure_;
  }
  return "Cannot read " + std::to_string(piece.size_bytes) + " bytes at " + std::to_string(piece.offset_bytes) +
         " of '" + sources_[piece.file_index]->name() + "', got " + std::to_string(failure.bytes) + ": " +
         describe(failure);
}

ReaderStatistics DirectReader::statistics() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  ReaderStatistics statistics = statistics_;
  if (running_ > 0) {
    statistics.busy_ns += clock_.now_ns() - busy_since_ns_;
  }
  return statistics;
}

void DirectReader::work() noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_available_->wait(lock, [this] { return closing_ || has_work(); });
    if (closing_) {
      return;
    }
    const Task task = take_task();
    const ReadPiece piece = task.read->pieces_[task.index];
    lock.unlock();
    const ReadResult result = read_piece(piece);
    lock.lock();
    settle(task, result);
  }
}

ReadResult DirectReader::read_piece(const ReadPiece& piece) noexcept {
  ReadSource& source = *sources_[piece.file_index];
  const std::uint64_t size_bytes = source.size_bytes();
  const std::uint64_t left_bytes = piece.offset_bytes < size_bytes ? size_bytes - piece.offset_bytes : 0;
  const std::uint64_t expected_bytes = std::min(piece.size_bytes, left_bytes);
  ReadResult result;
  if (expected_bytes > 0) {
    result = source.read(piece.offset_bytes, piece.size_bytes, piece.destination);
    if (result.fault == ReadFault::none && result.bytes < expected_bytes) {
      result.fault = ReadFault::ended;
    }
  }
  if (expected_bytes < piece.size_bytes) {
    std::memset(pointer_at(piece.destination + expected_bytes), 0, piece.size_bytes - expected_bytes);
  }
  return result;
}

DirectReader::Task DirectReader::take_task() noexcept {
  std::deque<ReadHandle>& reads = queues_[0].empty() ? queues_[1] : queues_[0];
  Task task{.read = reads.front(), .index = reads.front()->next_piece_};
  ++task.read->next_piece_;
  ++task.read->running_pieces_;
  if (task.read->next_piece_ == task.read->pieces_.size()) {
    task.read->is_queued_ = false;
    reads.pop_front();
  }
  if (running_++ == 0) {
    busy_since_ns_ = clock_.now_ns();
  }
  return task;
}

void DirectReader::settle(const Task& task, const ReadResult& result) noexcept {
  if (--running_ == 0) {
    statistics_.busy_ns += clock_.now_ns() - busy_since_ns_;
  }
  Read& read = *task.read;
  --read.running_pieces_;
  statistics_.read_bytes += result.bytes;
  if (result.fault != ReadFault::none && read.outcome_ == ReadOutcome::complete) {
    read.failed_piece_ = task.index;
    read.failure_ = result;
    remove_from_queue(task.read);
    stop(read, ReadOutcome::failed);
  } else if (!read.is_queued_ && read.running_pieces_ == 0) {
    read.finished_->notify_all();
  }
}

void DirectReader::remove_from_queue(const ReadHandle& read) noexcept {
  if (read->is_queued_) {
    read->is_queued_ = false;
    std::deque<ReadHandle>& reads = queue(read->priority_);
    reads.erase(std::find(reads.begin(), reads.end(), read));
  }
}

void DirectReader::stop(Read& read, ReadOutcome outcome) noexcept {
  read.outcome_ = outcome;
  ++(outcome == ReadOutcome::failed ? statistics_.failed : statistics_.cancelled);
  read.finished_->notify_all();
}

void DirectReader::require_own_process() const {
  if (is_foreign_process()) {
    throw Error(kForkedText);
  }
}

bool DirectReader::is_foreign_process() const noexcept { return getpid() != process_; }

}  // namespace tierpool
