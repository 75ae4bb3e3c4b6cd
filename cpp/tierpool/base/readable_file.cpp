#include "tierpool/base/readable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <system_error>
#include <utility>

#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

std::string reason_of(int error_number) { return std::generic_category().message(error_number); }

}  // namespace

// O_NONBLOCK: a pipe has to be refused, not waited for.
ReadableFile::ReadableFile(std::string path)
    : path_(std::move(path)), descriptor_(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  struct stat status {};
  if (descriptor_ < 0 || fstat(descriptor_, &status) != 0) {
    const std::string reason = reason_of(errno);
    close(descriptor_);
    throw ReadError("Cannot open '" + path_ + "' for reading: " + reason);
  }
  if (!S_ISREG(status.st_mode)) {
    close(descriptor_);
    throw ReadError("Cannot read '" + path_ + "': it is not a regular file");
  }
  size_bytes_ = static_cast<std::uint64_t>(status.st_size);
}

ReadableFile::~ReadableFile() { close(descriptor_); }

void ReadableFile::require(std::uint64_t offset_bytes, std::uint64_t bytes) const {
  if (offset_bytes > size_bytes_ || bytes > size_bytes_ - offset_bytes) {
    throw ReadError("Cannot read " + std::to_string(bytes) + " bytes of '" + path_ + "' from offset " +
                    std::to_string(offset_bytes) + ": it has " + std::to_string(size_bytes_));
  }
}

void ReadableFile::read(std::uint64_t offset_bytes, std::uint64_t bytes, void* destination) const {
  std::uint64_t done = 0;
  while (done < bytes) {
    const ssize_t count = pread(descriptor_, static_cast<std::byte*>(destination) + done, bytes - done,
                                static_cast<off_t>(offset_bytes + done));
    if (count > 0) {
      done += static_cast<std::uint64_t>(count);
    } else if (count == 0) {
      throw ReadError("Cannot read '" + path_ + "' at offset " + std::to_string(offset_bytes + done) +
                      ": it ends there, although it had " + std::to_string(size_bytes_) + " bytes when it was opened");
    } else if (errno != EINTR) {
      throw ReadError("Cannot read '" + path_ + "' at offset " + std::to_string(offset_bytes + done) + ": " +
                      reason_of(errno) + "; check the disk and its connection");
    }
  }
}

}  // namespace tierpool
