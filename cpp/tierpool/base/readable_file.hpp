#pragma once

#include <cstdint>
#include <string>

namespace tierpool {

/// A regular file, open for reading. Thread-safe.
class ReadableFile {
 public:
  /// Throws ReadError naming the path and the reason.
  explicit ReadableFile(std::string path);
  ~ReadableFile();
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  /// As the system told it when the file was opened; in /proc and /sys that is not what can be read.
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  /// Throws ReadError for a range that ends behind the file.
  void require(std::uint64_t offset_bytes, std::uint64_t bytes) const;
  /// Reads exactly so many bytes, through the page cache. Blocks. Throws ReadError when the disk fails or the file
  /// ends before.
  void read(std::uint64_t offset_bytes, std::uint64_t bytes, void* destination) const;

 private:
  const std::string path_;
  const int descriptor_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace tierpool
