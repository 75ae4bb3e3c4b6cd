// A cache and a ring over a real file: disk, slots and window together, as an engine uses them.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "support/file_mapping.hpp"
#include "support/temporary_file.hpp"
#include "support/weight_bytes.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/clock.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/storage/expert_cache.hpp"
#include "tierpool/storage/file_source.hpp"
#include "tierpool/storage/layer_ring.hpp"
#include "tierpool/storage/lrfu_policy.hpp"
#include "tierpool/storage/unit_layout.hpp"
#include "tierpool/storage/weight_window.hpp"

namespace tierpool {
namespace {

constexpr std::uint32_t kUnits = 24;
constexpr std::uint32_t kSlots = 7;

/// 24 experts of three tensors with a stride that is no multiple of a page, and norms between them. What is in no slot
/// and is not resident cannot be read.
class Streaming : public ::testing::Test {
 protected:
  Streaming() {
    std::vector<Extent> resident;
    std::uint64_t offset = 0;
    for (int tensor = 0; tensor < 3; ++tensor) {
      resident.push_back({0, offset, 900});
      offset += 900;
      for (std::vector<Extent>& expert : tensors_) {
        expert.push_back({0, offset, stride_});
        offset += stride_;
      }
    }
    bytes_ = testing::random_bytes(offset, 21);
    layout_ = lay_out_units(tensors_, resident, page_);
    file_ = std::make_unique<testing::TemporaryFile>(bytes_);
    mapping_ = std::make_unique<testing::FileMapping>(file_->path(), 0, align_up(offset, page_));
    source_ = std::make_shared<FileSource>(file_->path());
    units_ = std::make_unique<UnitTable>(layout_.units, page_);
    slots_ = std::make_unique<SlotPool>(device_, budget_, units_->largest_unit_bytes(), kSlots, page_);
    reader_ = std::make_unique<DirectReader>(std::vector<std::shared_ptr<ReadSource>>{source_},
                                             DirectReader::Options{.threads = 3, .piece_bytes = 16 * kKiB}, clock_);
    loader_ = std::make_unique<UnitLoader>(*reader_, *units_, *slots_);
    const WindowFile file{mapping_->address(), 0, align_up(offset, page_), source_->file_descriptor()};
    window_ = std::make_unique<WeightWindow>(*units_, *slots_, std::vector<WindowFile>{file}, layout_.copies(),
                                             Uncovered::refused);
    window_->load_resident(layout_.resident, MemoryPurpose::resident_weights, *reader_, budget_);
    window_->load_resident(layout_.edges, MemoryPurpose::edge_pages, *reader_, budget_);
  }

  /// Reads every byte of the unit's tensors where an engine would.
  [[nodiscard]] bool computes(UnitId unit) const {
    return std::all_of(tensors_[unit].begin(), tensors_[unit].end(), [&](const Extent& tensor) {
      return testing::holds(mapping_->address() + tensor.offset_bytes, bytes_, tensor.offset_bytes, tensor.size_bytes);
    });
  }

  const std::uint64_t page_ = testing::system_page_bytes();
  const std::uint64_t stride_ = 5 * page_ + 544;
  std::vector<std::vector<Extent>> tensors_{kUnits};
  std::vector<unsigned char> bytes_;
  UnitLayout layout_;
  SteadyClock clock_;
  HostDevice device_{HostBacking::shared_memory};
  MemoryBudget budget_{"host", 64 * kMiB};
  std::unique_ptr<testing::TemporaryFile> file_;
  std::unique_ptr<testing::FileMapping> mapping_;
  std::shared_ptr<FileSource> source_;
  std::unique_ptr<UnitTable> units_;
  std::unique_ptr<SlotPool> slots_;
  std::unique_ptr<DirectReader> reader_;
  std::unique_ptr<UnitLoader> loader_;
  std::unique_ptr<WeightWindow> window_;
};

TEST_F(Streaming, EveryByteOfALeasedExpertIsTheFiles) {
  ExpertCache cache(*loader_, *slots_, *window_, std::make_unique<LrfuPolicy>(kUnits), clock_);
  std::mt19937 random(6);
  for (int step = 0; step < 400; ++step) {
    std::vector<UnitId> requests(1 + random() % kSlots);
    for (UnitId& unit : requests) {
      unit = static_cast<UnitId>(random() % kUnits);
    }
    const ExpertCache::Lease lease = cache.acquire(requests);
    for (const UnitId unit : requests) {
      ASSERT_TRUE(computes(unit)) << "unit " << unit << " in step " << step;
    }
  }
  const CacheStatistics statistics = cache.statistics();
  EXPECT_GT(statistics.hits, 100u);
  EXPECT_GT(statistics.evictions, 500u);
  EXPECT_LE(statistics.read_bytes, statistics.misses * 3 * stride_);
  EXPECT_LE(budget_.peak_bytes(), budget_.limit_bytes());
}

TEST_F(Streaming, EveryByteOfTheLayerInUseIsTheFiles) {
  std::vector<UnitId> layers(kUnits);
  std::iota(layers.begin(), layers.end(), 0);
  LayerRing ring(*loader_, *slots_, *window_, layers, 3, clock_);
  ring.start();
  for (std::uint32_t step = 0; step < 10 * kUnits; ++step) {
    const std::uint32_t layer = step % kUnits;
    ring.enter(layer);
    ASSERT_TRUE(computes(layer)) << step;
    for (std::uint32_t pinned = 0; pinned < kUnits; ++pinned) {
      ASSERT_TRUE(!ring.is_pinned(pinned) || computes(pinned)) << step;
    }
  }
}

TEST_F(Streaming, AFileThatIsCutMeanwhileIsAnErrorAndNothingIsComputedFromIt) {
  ExpertCache cache(*loader_, *slots_, *window_, std::make_unique<LrfuPolicy>(kUnits), clock_);
  const ExpertCache::Lease before = cache.acquire(std::vector<UnitId>{1, 2});
  ASSERT_EQ(truncate(file_->path().c_str(), static_cast<off_t>(bytes_.size() / 2)), 0);
  EXPECT_THROW(static_cast<void>(cache.acquire(std::vector<UnitId>{3})), ReadError);
  EXPECT_THROW(static_cast<void>(cache.acquire(std::vector<UnitId>{2, kUnits - 1})), ReadError);
  EXPECT_TRUE(computes(1) && computes(2));  // what was read before is not affected
}

}  // namespace
}  // namespace tierpool
