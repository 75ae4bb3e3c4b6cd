#include "tierpool/device/granule_chunks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace tierpool {
namespace {

using ChunkRun = GranuleChunks::Run;

void expect_run(const ChunkRun& run, std::uint64_t first, std::uint64_t count) {
  EXPECT_EQ(run.first, first);
  EXPECT_EQ(run.count, count);
}

TEST(GranuleChunks, AreMissingAtFirst) {
  const GranuleChunks chunks(8);
  expect_run(chunks.find_missing(2, 7), 2, 5);
  EXPECT_FALSE(chunks.find_missing(3, 3));
  EXPECT_FALSE(chunks.find_chunk(0, 8));
  EXPECT_FALSE(chunks.find_unused(0, 8));
}

TEST(GranuleChunks, MissingRunsLieBetweenChunks) {
  GranuleChunks chunks(8);
  chunks.add_chunk({.first = 2, .count = 2});
  expect_run(chunks.find_missing(0, 8), 0, 2);
  expect_run(chunks.find_missing(2, 8), 4, 4);
  expect_run(chunks.find_missing(3, 5), 4, 1);
}

TEST(GranuleChunks, AChunkGoesOnceNoGranuleOfItIsUsed) {
  GranuleChunks chunks(8);
  chunks.add_chunk({.first = 0, .count = 4});
  chunks.add_chunk({.first = 4, .count = 4});
  chunks.set_used(0, 8, true);
  EXPECT_FALSE(chunks.find_unused(0, 8));
  chunks.set_used(1, 4, false);
  EXPECT_FALSE(chunks.find_unused(1, 4));
  chunks.set_used(0, 1, false);
  expect_run(chunks.find_unused(0, 1), 0, 4);
  chunks.remove_chunk({.first = 0, .count = 4});
  expect_run(chunks.find_missing(0, 8), 0, 4);
  expect_run(chunks.find_chunk(0, 8), 4, 4);
}

TEST(GranuleChunks, RangesLoseTheChunksTheyCutAtTheirEnds) {
  GranuleChunks chunks(12);
  chunks.add_chunk({.first = 0, .count = 4});
  chunks.add_chunk({.first = 4, .count = 1});
  chunks.add_chunk({.first = 5, .count = 7});
  expect_run(chunks.whole_within(0, 12), 0, 12);
  expect_run(chunks.whole_within(1, 11), 4, 1);
  expect_run(chunks.whole_within(0, 5), 0, 5);
  EXPECT_FALSE(chunks.whole_within(1, 4));
  EXPECT_FALSE(chunks.whole_within(6, 12));
}

// Against an array that says for each granule which chunk it belongs to.
TEST(GranuleChunks, RandomUseAgreesWithTheModel) {
  constexpr std::uint64_t kGranules = 40;
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    GranuleChunks chunks(kGranules);
    std::vector<std::uint64_t> chunk_of(kGranules, 0);
    std::vector<bool> used(kGranules, false);
    std::uint64_t next_chunk = 1;
    for (int step = 0; step < 60; ++step) {
      const std::uint64_t begin = random() % kGranules;
      const std::uint64_t end = begin + random() % (kGranules - begin + 1);
      if (random() % 2 == 0) {
        const std::uint64_t most = 1 + random() % 6;
        for (ChunkRun run = chunks.find_missing(begin, end); run; run = chunks.find_missing(run.end(), end)) {
          run.count = std::min(run.count, most);
          ASSERT_EQ(std::count(chunk_of.begin() + static_cast<std::ptrdiff_t>(run.first),
                               chunk_of.begin() + static_cast<std::ptrdiff_t>(run.end()), 0u),
                    static_cast<std::ptrdiff_t>(run.count));
          chunks.add_chunk(run);
          std::fill_n(chunk_of.begin() + static_cast<std::ptrdiff_t>(run.first), run.count, next_chunk++);
        }
        chunks.set_used(begin, end, true);
        std::fill(used.begin() + static_cast<std::ptrdiff_t>(begin), used.begin() + static_cast<std::ptrdiff_t>(end),
                  true);
      } else {
        chunks.set_used(begin, end, false);
        std::fill(used.begin() + static_cast<std::ptrdiff_t>(begin), used.begin() + static_cast<std::ptrdiff_t>(end),
                  false);
        for (ChunkRun run = chunks.find_unused(begin, end); run; run = chunks.find_unused(run.end(), end)) {
          chunks.remove_chunk(run);
          const std::uint64_t chunk = chunk_of[run.first];
          for (std::uint64_t granule = run.first; granule < run.end(); ++granule) {
            ASSERT_FALSE(used[granule]);
            ASSERT_EQ(chunk_of[granule], chunk);
            chunk_of[granule] = 0;
          }
        }
        for (std::uint64_t granule = begin; granule < end; ++granule) {
          bool shared = false;
          for (std::uint64_t other = 0; other < kGranules; ++other) {
            shared = shared || (used[other] && chunk_of[other] == chunk_of[granule]);
          }
          ASSERT_TRUE(chunk_of[granule] == 0 || shared) << "granule " << granule << " was kept for nothing";
        }
      }
      for (std::uint64_t granule = 0; granule < kGranules; ++granule) {
        ASSERT_EQ(static_cast<bool>(chunks.find_missing(granule, granule + 1)), chunk_of[granule] == 0);
      }
    }
  }
}

}  // namespace
}  // namespace tierpool
