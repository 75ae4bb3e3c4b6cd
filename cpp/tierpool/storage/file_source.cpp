#include "tierpool/storage/file_source.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/base/logging.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kBlockBytes = 4 * kKiB;  // whole blocks of every disk

}  // namespace

FileSource::FileSource(std::string path) : FileSource(std::move(path), &pread) {}

FileSource::FileSource(std::string path, PreadCall pread_call)
    : path_(std::move(path)),
      buffered_text_("'" + path_ + "' cannot be read past the page cache, and so is read through it, which is slower"),
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
  if (!is_direct()) {
    log(LogLevel::warning, buffered_text_);
  }
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
  bool goes_direct = true;
  while (result.bytes < expected) {
    const bool direct = goes_direct && is_direct();
    // Direct reads begin at whole blocks: one that came in part is read again from its beginning.
    const std::uint64_t begin = direct ? align_down(result.bytes, kBlockBytes) : result.bytes;
    const ssize_t count = read_some(direct, offset_bytes + begin, bytes - begin, destination + begin);
    if (count < 0) {
      if (direct && (errno == EINVAL || errno == ENOTSUP)) {
        give_up_direct();
        continue;
      }
      result.fault = ReadFault::failed;
      result.error_number = errno;
      return result;
    }
    if (count == 0) {
      break;
    }
    const std::uint64_t end = begin + static_cast<std::uint64_t>(count);
    goes_direct = goes_direct && end > result.bytes;  // else the same could come for ever
    result.bytes = end;
  }
  // Afterwards, because what was read before a change is not what the file was when it was opened either.
  result.fault = find_change();
  if (result.fault == ReadFault::none && result.bytes != expected) {
    result.fault = ReadFault::ended;
  }
  return result;
}

ssize_t FileSource::read_some(bool direct, std::uint64_t offset_bytes, std::uint64_t bytes,
                              std::uint64_t destination) noexcept {
  const int descriptor = direct ? direct_descriptor_ : buffered_descriptor_;
  ssize_t count = 0;
  do {
    count = pread_call_(descriptor, pointer_at(destination), bytes, static_cast<off_t>(offset_bytes));
  } while (count < 0 && errno == EINTR);
  if (count > 0 && !direct) {
    forget_cached(descriptor, offset_bytes, static_cast<std::uint64_t>(count));
  }
  return count;
}

void FileSource::give_up_direct() noexcept {
  if (direct_.exchange(false, std::memory_order_relaxed)) {
    log(LogLevel::warning, buffered_text_);
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
