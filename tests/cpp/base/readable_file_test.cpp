#include "tierpool/base/readable_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/temporary_file.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::TemporaryFile;
using Bytes = std::vector<unsigned char>;

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const ReadError& error) {
    return error.what();
  }
  return "";
}

std::string refusal_to_open(const std::string& path) {
  return refusal([&] { const ReadableFile file(path); });
}

TEST(ReadableFile, ReadsFromAnyOffset) {
  const TemporaryFile written({1, 2, 3, 4, 5});
  const ReadableFile file(written.path());
  EXPECT_EQ(file.size_bytes(), 5u);
  Bytes found(3);
  file.read(1, 3, found.data());
  EXPECT_EQ(found, (Bytes{2, 3, 4}));
  file.read(5, 0, found.data());
  EXPECT_EQ(found, (Bytes{2, 3, 4}));
}

TEST(ReadableFile, RequiresWhatItHas) {
  const TemporaryFile written({1, 2, 3, 4, 5});
  const ReadableFile file(written.path());
  EXPECT_NO_THROW(file.require(0, 5));
  EXPECT_NO_THROW(file.require(5, 0));
  EXPECT_EQ(refusal([&] { file.require(2, 4); }),
            "Cannot read 4 bytes of '" + written.path() + "' from offset 2: it has 5");
  EXPECT_THROW(file.require(6, 0), ReadError);
  EXPECT_THROW(file.require(1, std::numeric_limits<std::uint64_t>::max()), ReadError);
}

TEST(ReadableFile, AnEmptyFileHasNoBytes) {
  const TemporaryFile written(Bytes{});
  EXPECT_EQ(ReadableFile(written.path()).size_bytes(), 0u);
}

TEST(ReadableFile, WhatCannotBeOpenedIsNamedWithTheReason) {
  EXPECT_EQ(refusal_to_open("/nowhere/weights"),
            "Cannot open '/nowhere/weights' for reading: No such file or directory");
  const std::string folder = ::testing::TempDir();
  EXPECT_EQ(refusal_to_open(folder), "Cannot read '" + folder + "': it is not a regular file");
}

TEST(ReadableFile, AFileThatEndsBeforeItsSizeIsAnError) {
  const TemporaryFile written({1, 2, 3, 4, 5});
  const ReadableFile file(written.path());
  ASSERT_EQ(truncate(written.path().c_str(), 3), 0);
  Bytes found(5);
  EXPECT_EQ(
      refusal([&] { file.read(1, 4, found.data()); }),
      "Cannot read '" + written.path() + "' at offset 3: it ends there, although it had 5 bytes when it was opened");
}

}  // namespace
}  // namespace tierpool
