#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "tierpool/base/address.hpp"

namespace tierpool::testing {

/// A mapping of a file, as an engine makes it.
class FileMapping {
 public:
  FileMapping(const std::string& path, std::uint64_t offset, std::uint64_t bytes)
      : file_descriptor_(open(path.c_str(), O_RDONLY)),
        bytes_(bytes),
        mapping_(mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file_descriptor_, static_cast<off_t>(offset))) {
    EXPECT_NE(mapping_, MAP_FAILED);
  }
  ~FileMapping() {
    munmap(mapping_, bytes_);
    close(file_descriptor_);
  }
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  [[nodiscard]] std::uint64_t address() const noexcept { return address_of(mapping_); }
  [[nodiscard]] int file_descriptor() const noexcept { return file_descriptor_; }

 private:
  const int file_descriptor_;
  const std::uint64_t bytes_;
  void* const mapping_;
};

}  // namespace tierpool::testing
