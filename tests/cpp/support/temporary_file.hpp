#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tierpool::testing {

/// A file with the given bytes, removed at the end.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::vector<unsigned char>& bytes) : path_(::testing::TempDir() + "tierpool-XXXXXX") {
    const int file_descriptor = mkstemp(path_.data());
    EXPECT_GE(file_descriptor, 0) << path_;
    EXPECT_EQ(write(file_descriptor, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    fsync(file_descriptor);  // what is still to be written could change the time of modification
    close(file_descriptor);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace tierpool::testing
