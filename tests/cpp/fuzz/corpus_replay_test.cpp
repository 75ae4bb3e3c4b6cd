// Feeds a fuzz target every input that was kept, so that what fuzzing once found stays fixed under every compiler.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

TEST(CorpusReplay, EveryKeptInputPasses) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TIERPOOL_FUZZ_CORPUS)) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
    ASSERT_TRUE(file);
    const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
    EXPECT_EQ(LLVMFuzzerTestOneInput(input.data(), input.size()), 0);
    ++count;
  }
  EXPECT_GT(count, 10);
}

TEST(CorpusReplay, EmptyInputPasses) { EXPECT_EQ(LLVMFuzzerTestOneInput(nullptr, 0), 0); }

}  // namespace
