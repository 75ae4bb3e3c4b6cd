#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "tierpool/storage/direct_file.hpp"
#include "tierpool/storage/read_source.hpp"

namespace tierpool {

/// A regular file, read past the page cache where the file system allows it and through it, without leaving anything
/// there, where it does not, which is logged once; some refuse only when they are read. Interrupted and partial reads
/// are taken up again; a file that is not the one that was opened is a fault. Thread-safe.
class FileSource final : public ReadSource {
 public:
  /// The system's pread(); a test puts its own in the place.
  using PreadCall = ssize_t (*)(int, void*, std::size_t, off_t);

  /// Throws ReadError naming the path and the reason.
  explicit FileSource(std::string path, PreadCall pread_call);
  explicit FileSource(std::string path);
  ~FileSource() override;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  [[nodiscard]] const std::string& name() const noexcept override { return path_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept override { return opened_.size_bytes; }
  [[nodiscard]] ReadResult read(std::uint64_t offset_bytes, std::uint64_t bytes,
                                std::uint64_t destination) noexcept override;

  /// Whether reads go past the page cache.
  [[nodiscard]] bool is_direct() const noexcept { return direct_.load(std::memory_order_relaxed); }
  /// For mapping the file; stays this object's.
  [[nodiscard]] int file_descriptor() const noexcept { return buffered_descriptor_; }

 private:
  /// One call of pread(), repeated when interrupted.
  [[nodiscard]] ssize_t read_some(bool direct, std::uint64_t offset_bytes, std::uint64_t bytes,
                                  std::uint64_t destination) noexcept;
  /// From here on through the page cache; the first time, says so.
  void give_up_direct() noexcept;
  [[nodiscard]] ReadFault find_change() const noexcept;

  const std::string path_;
  const std::string buffered_text_;  // for the log; a read cannot fail for want of memory for it
  const PreadCall pread_call_;
  const int buffered_descriptor_;
  int direct_descriptor_ = -1;
  std::atomic<bool> direct_{false};
  FileState opened_;
};

}  // namespace tierpool
