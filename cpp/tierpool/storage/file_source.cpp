#include "tierpool/storage/file_source.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {

FileSource::FileSource(std::string path) : FileSource(std::move(path), &pread) {}

FileSource::FileSource(std::string path, PreadCall pread_call)
    : path_(std::move(path)),
      pread_call_(pread_call),
      // O_NONBLOCK: a pipe has to be refused, not waited for.
      buffered_descriptor_(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (buffered_descriptor_ < 0 || !read_file_state(buffered_descriptor_, opened_)) {
    const std::string reason = std::generic_category().message(errno);
    close(buffered_descriptor_);
    throw ReadError("Cannot open '" + path_ + "' for reading: " + reason);
  }
  if (!opened_.is_regular) {
    close(buffered_descriptor_);
    throw ReadError("Cannot read weights from '" + path_ + "': it is not a regular file");
  }
  direct_descriptor_ = open_direct(path_.c_str());
  // Between the two calls the path may have come to name another file.
  FileState direct;
  direct_.store(direct_descriptor_ >= 0 && read_file_state(direct_descriptor_, direct) && direct == opened_);
}

FileSource::~FileSource() {
  close(buffered_descriptor_);
  if (direct_descriptor_ >= 0) {
    close(direct_descriptor_);
  }
}

ReadResult FileSource::read(std::uint64_t offset_bytes, std::uint64_t bytes, std::uint64_t destination) noexcept {
  ReadResult result;
  const std::uint64_t available = offset_bytes < opened_.size_bytes ? opened_.size_bytes - offset_bytes : 0;
  const std::uint64_t expected = available < bytes ? available : bytes;
  while (result.bytes < expected) {
    const ssize_t count = read_some(offset_bytes + result.bytes, bytes - result.bytes, destination + result.bytes);
    if (count < 0) {
      result.fault = ReadFault::failed;
      result.error_number = errno;
      return result;
    }
    if (count == 0) {
      break;
    }
    result.bytes += static_cast<std::uint64_t>(count);
  }
  // Afterwards, because what was read before a change is not what the file was when it was opened either.
  result.fault = find_change();
  if (result.fault == ReadFault::none && result.bytes != expected) {
    result.fault = ReadFault::ended;
  }
  return result;
}

ssize_t FileSource::read_some(std::uint64_t offset_bytes, std::uint64_t bytes, std::uint64_t destination) noexcept {
  while (true) {
    const bool direct = is_direct();
    const int descriptor = direct ? direct_descriptor_ : buffered_descriptor_;
    const ssize_t count = pread_call_(descriptor, pointer_at(destination), bytes, static_cast<off_t>(offset_bytes));
    if (count >= 0) {
      if (!direct) {
        forget_cached(descriptor, offset_bytes, static_cast<std::uint64_t>(count));
      }
      return count;
    }
    if (direct && (errno == EINVAL || errno == ENOTSUP)) {
      direct_.store(false, std::memory_order_relaxed);
    } else if (errno != EINTR) {
      return -1;
    }
  }
}

ReadFault FileSource::find_change() const noexcept {
  FileState now;
  if (!read_file_state(buffered_descriptor_, now)) {
    return ReadFault::gone;
  }
  if (now.link_count == 0 && opened_.link_count > 0) {
    return ReadFault::gone;
  }
  const bool same = now.size_bytes == opened_.size_bytes && now.modified_ns == opened_.modified_ns;
  return same ? ReadFault::none : ReadFault::changed;
}

}  // namespace tierpool
