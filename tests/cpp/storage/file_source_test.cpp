#include "tierpool/storage/file_source.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "support/captured_log.hpp"
#include "support/page_buffer.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::holds;
using testing::PageBuffer;
using testing::TemporaryFile;

constexpr std::uint64_t kFileBytes = 10 * 65536 + 777;  // no whole number of pages of any size
constexpr std::uint64_t kRangeBytes = 11 * 65536;

std::string error_of_opening(const std::string& path) {
  try {
    const FileSource source(path);
  } catch (const ReadError& error) {
    return error.what();
  }
  return "";
}

bool is_direct_descriptor(int file_descriptor) { return (fcntl(file_descriptor, F_GETFL) & O_DIRECT) != 0; }

// What the next calls of pread() do; anything behind them works as usual. A direct read begins at whole blocks of file
// and memory, or is refused; what a read that is cut short left behind its end is no file's.
std::vector<ssize_t> script;  // bytes, or -errno
int refused_direct_reads = 0;
ssize_t scripted_pread(int file_descriptor, void* destination, std::size_t bytes, off_t offset) {
  const bool whole_blocks = (static_cast<std::uint64_t>(offset) | bytes | address_of(destination)) % 4096 == 0;
  if (is_direct_descriptor(file_descriptor) && !whole_blocks) {
    ++refused_direct_reads;
    errno = EINVAL;
    return -1;
  }
  std::size_t limit = bytes;
  if (!script.empty()) {
    const ssize_t next = script.front();
    script.erase(script.begin());
    if (next < 0) {
      errno = static_cast<int>(-next);
      return -1;
    }
    limit = std::min(limit, static_cast<std::size_t>(next));
  }
  const ssize_t count = limit == 0 ? 0 : pread(file_descriptor, destination, bytes, offset);
  if (count <= static_cast<ssize_t>(limit)) {
    return count;
  }
  std::memset(static_cast<unsigned char*>(destination) + limit, 0xee, static_cast<std::size_t>(count) - limit);
  return static_cast<ssize_t>(limit);
}

ssize_t pread_that_refuses_direct_reads(int file_descriptor, void* destination, std::size_t bytes, off_t offset) {
  if (is_direct_descriptor(file_descriptor)) {
    errno = EINVAL;
    return -1;
  }
  return pread(file_descriptor, destination, bytes, offset);
}

class FileSourceTest : public ::testing::Test {
 protected:
  ~FileSourceTest() override {
    script.clear();
    refused_direct_reads = 0;
  }

  const std::vector<unsigned char> bytes_ = testing::random_bytes(kFileBytes, 1);
  const TemporaryFile file_{bytes_};
  PageBuffer buffer_{kRangeBytes};
};

TEST_F(FileSourceTest, ReadsEveryRangeAndStopsAtTheEnd) {
  FileSource source(file_.path());
  EXPECT_EQ(source.name(), file_.path());
  EXPECT_EQ(source.size_bytes(), kFileBytes);
  const ReadResult all = source.read(0, kRangeBytes, buffer_.address());
  EXPECT_EQ(all.fault, ReadFault::none);
  EXPECT_EQ(all.bytes, kFileBytes);
  EXPECT_TRUE(holds(buffer_.address(), bytes_, 0, kFileBytes));
  for (const std::uint64_t offset : {std::uint64_t{65536}, std::uint64_t{9 * 65536}}) {
    const ReadResult part = source.read(offset, 65536, buffer_.address());
    EXPECT_EQ(part.fault, ReadFault::none);
    EXPECT_EQ(part.bytes, 65536u);
    EXPECT_TRUE(holds(buffer_.address(), bytes_, offset, 65536));
  }
  EXPECT_EQ(source.read(kRangeBytes, 65536, buffer_.address()).bytes, 0u);
}

TEST_F(FileSourceTest, TakesUpPartialAndInterruptedReads) {
  FileSource source(file_.path(), &scripted_pread);
  script = {-EINTR, 65536, -EINTR, -EINTR, 4096, 12345, 1, 65536};
  const ReadResult result = source.read(0, kRangeBytes, buffer_.address());
  EXPECT_EQ(result.fault, ReadFault::none);
  EXPECT_EQ(result.bytes, kFileBytes);
  EXPECT_TRUE(holds(buffer_.address(), bytes_, 0, kFileBytes));
  EXPECT_TRUE(script.empty());
}

TEST_F(FileSourceTest, ReadsThatAreCutShortStayDirect) {
  const testing::CapturedLog log;
  FileSource source(file_.path(), &scripted_pread);
  const int direct = open(file_.path().c_str(), O_RDONLY | O_DIRECT);
  if (direct < 0) {
    GTEST_SKIP() << "the file system of " << file_.path() << " has no direct reads: set TMPDIR to one on a disk";
  }
  close(direct);
  ASSERT_TRUE(source.is_direct());
  for (const std::vector<ssize_t>& cuts : std::vector<std::vector<ssize_t>>{
           {12345, 65536}, {1, 1, 1}, {4095, 4096, 4097, 8192, 511}, {512, 100, 100}, {65536, -EINTR, 777, -EINTR}}) {
    script = cuts;
    const ReadResult result = source.read(65536, kRangeBytes - 65536, buffer_.address());
    EXPECT_EQ(result.fault, ReadFault::none);
    EXPECT_EQ(result.bytes, kFileBytes - 65536);
    EXPECT_TRUE(holds(buffer_.address(), bytes_, 65536, kFileBytes - 65536));
    EXPECT_TRUE(script.empty());
    EXPECT_TRUE(source.is_direct());
  }
  EXPECT_EQ(refused_direct_reads, 0);
  EXPECT_TRUE(log.records().empty());
}

TEST_F(FileSourceTest, ReadsThroughThePageCacheWhereDirectReadsAreRefused) {
  const testing::CapturedLog log;
  FileSource source(file_.path(), &pread_that_refuses_direct_reads);
  for (int round = 0; round < 2; ++round) {
    const ReadResult result = source.read(65536, 65536, buffer_.address());
    EXPECT_EQ(result.fault, ReadFault::none);
    EXPECT_TRUE(holds(buffer_.address(), bytes_, 65536, 65536));
    EXPECT_FALSE(source.is_direct());
  }
  ASSERT_EQ(log.records().size(), 1U);
  EXPECT_EQ(log.records()[0].level, LogLevel::warning);
  EXPECT_NE(log.records()[0].message.find("'" + file_.path() + "' cannot be read past the page cache"),
            std::string::npos);
}

// A disk's refusal in earnest: it cannot write to addresses like this one.
TEST_F(FileSourceTest, ReadsThroughThePageCacheWhatTheDiskCannotDeliver) {
  FileSource source(file_.path());
  const ReadResult result = source.read(0, 65536, buffer_.address() + 1);
  EXPECT_EQ(result.fault, ReadFault::none);
  EXPECT_EQ(result.bytes, 65536u);
  EXPECT_TRUE(holds(buffer_.address() + 1, bytes_, 0, 65536));
  EXPECT_EQ(source.read(65536, 65536, buffer_.address()).bytes, 65536u);
  EXPECT_TRUE(holds(buffer_.address(), bytes_, 65536, 65536));
}

TEST_F(FileSourceTest, AnErrorAtAnyPointIsReported) {
  FileSource source(file_.path(), &scripted_pread);
  for (std::size_t point = 0; point < 3; ++point) {
    script.assign(point, 65536);
    script.push_back(-EIO);
    const ReadResult result = source.read(0, 4 * 65536, buffer_.address());
    EXPECT_EQ(result.fault, ReadFault::failed);
    EXPECT_EQ(result.error_number, EIO);
    EXPECT_EQ(result.bytes, point * 65536);
  }
}

TEST_F(FileSourceTest, AnEndBeforeTheEndIsReported) {
  FileSource source(file_.path(), &scripted_pread);
  script = {65536, 0};
  const ReadResult result = source.read(0, 4 * 65536, buffer_.address());
  EXPECT_EQ(result.fault, ReadFault::ended);
  EXPECT_EQ(result.bytes, 65536u);
}

TEST_F(FileSourceTest, AFileThatIsNotWhatItWasIsReported) {
  const auto fault_after = [this](const auto& change) {
    FileSource source(file_.path());
    EXPECT_EQ(source.read(0, 65536, buffer_.address()).fault, ReadFault::none);
    change();
    return source.read(0, 65536, buffer_.address()).fault;
  };
  EXPECT_EQ(fault_after([this] { ASSERT_EQ(truncate(file_.path().c_str(), 100), 0); }), ReadFault::changed);
  EXPECT_EQ(fault_after([this] { ASSERT_EQ(truncate(file_.path().c_str(), kFileBytes), 0); }), ReadFault::changed);
  EXPECT_EQ(fault_after([this] {
              const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
              ASSERT_EQ(utimensat(AT_FDCWD, file_.path().c_str(), times, 0), 0);
            }),
            ReadFault::changed);
  EXPECT_EQ(fault_after([this] {
              const TemporaryFile other(bytes_);
              ASSERT_EQ(rename(other.path().c_str(), file_.path().c_str()), 0);
            }),
            ReadFault::gone);
  EXPECT_EQ(fault_after([this] { ASSERT_EQ(unlink(file_.path().c_str()), 0); }), ReadFault::gone);
}

TEST_F(FileSourceTest, RefusesWhatIsNoRegularFile) {
  EXPECT_EQ(error_of_opening("/nonexistent/model.gguf"),
            "Cannot open '/nonexistent/model.gguf' for reading: No such file or directory");
  EXPECT_NE(error_of_opening("/").find("'/': it is not a regular file"), std::string::npos);
  const std::string pipe = file_.path() + ".pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_NE(error_of_opening(pipe).find("not a regular file"), std::string::npos);
  unlink(pipe.c_str());
}

TEST_F(FileSourceTest, LeavesNothingInThePageCache) {
  FileSource source(file_.path(), &pread_that_refuses_direct_reads);
  const int file_descriptor = source.file_descriptor();
  ASSERT_EQ(posix_fadvise(file_descriptor, 0, 0, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(source.read(0, 4 * 65536, buffer_.address()).fault, ReadFault::none);
  iovec range{.iov_base = pointer_at(buffer_.address()), .iov_len = 4096};
  const ssize_t cached = preadv2(file_descriptor, &range, 1, 4096, RWF_NOWAIT);
  if (cached < 0 && errno == EOPNOTSUPP) {
    GTEST_SKIP() << "this file system does not tell what it has cached";
  }
  EXPECT_EQ(cached, -1);
}

}  // namespace
}  // namespace tierpool
