#include "tierpool/engine/layer_gate.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/storage_fixture.hpp"
#include "tierpool/engine/expert_gate.hpp"
#include "tierpool/engine/ring_gate.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool {
namespace {

constexpr std::uint32_t kLayers = 3;
constexpr std::uint32_t kExperts = 4;

class ExpertGateTest : public ::testing::Test {
 protected:
  void enter(std::uint32_t layer, const std::vector<std::int32_t>& experts) { gate_.enter(layer, experts); }

  testing::FakeStorage storage_{kLayers * kExperts, 3};
  ExpertCache cache_{storage_.loader, storage_.slots, storage_.binding, std::make_unique<LrfuPolicy>(kLayers* kExperts),
                     storage_.clock};
  ExpertGate gate_{cache_, kLayers, kExperts};
};

TEST_F(ExpertGateTest, ShowsTheLayersExperts) {
  enter(0, {2, 0, 2});
  EXPECT_TRUE(storage_.binding.shows(2));
  EXPECT_TRUE(storage_.binding.shows(0));
  enter(2, {3});
  EXPECT_TRUE(storage_.binding.shows(11));
}

TEST_F(ExpertGateTest, CountsOneRequestForEachTokenLayerAndExpert) {
  enter(0, {2, 0, 2});
  enter(1, {});
  enter(0, {2});
  const GateStatistics statistics = gate_.statistics();
  EXPECT_EQ(statistics.misses, 3U);
  EXPECT_EQ(statistics.hits, 1U);
  EXPECT_EQ(statistics.read_bytes, 2 * 3 * storage_.page);
  const std::vector<LayerRequests> layers = gate_.layer_requests();
  ASSERT_EQ(layers.size(), kLayers);
  EXPECT_EQ(layers[0].misses, 3U);
  EXPECT_EQ(layers[0].hits, 1U);
  EXPECT_EQ(layers[1].misses + layers[1].hits + layers[2].misses, 0U);
  EXPECT_EQ(layers[0].read_bytes, statistics.read_bytes);
  EXPECT_EQ(layers[1].read_bytes + layers[2].read_bytes, 0U);
}

TEST_F(ExpertGateTest, CountsWhatEachLayerWaitedFor) {
  storage_.source->set_delay(1000);
  for (const std::uint32_t layer : {0U, 2U}) {
    storage_.source->hold_from(storage_.source->calls().size());
    std::thread user([&] { enter(layer, {1}); });
    while (cache_.statistics().loads < layer / 2 + 1) {  // it waits, once the cache can be asked
      std::this_thread::yield();
    }
    storage_.source->let_go();
    user.join();
  }
  const std::vector<LayerRequests> layers = gate_.layer_requests();
  EXPECT_EQ(layers[0].stall_ns, 2000U);  // two pieces
  EXPECT_EQ(layers[1].stall_ns, 0U);
  EXPECT_EQ(layers[2].stall_ns, 2000U);
}

TEST_F(ExpertGateTest, TheLayerBeforeMayGoButNotTheLayerEntered) {
  enter(0, {0, 1, 2});
  enter(1, {0, 1, 2});
  for (const UnitId unit : {4U, 5U, 6U}) {
    EXPECT_TRUE(storage_.binding.shows(unit));
    EXPECT_FALSE(storage_.binding.shows(unit - 4));
  }
  const std::vector<UnitId> more{7};
  EXPECT_THROW(static_cast<void>(cache_.acquire(more)), BudgetError);
  gate_.leave();
  EXPECT_NO_THROW(static_cast<void>(cache_.acquire(more)));
}

TEST_F(ExpertGateTest, ALayerOfNoTokensHoldsNothing) {
  enter(0, {0, 1, 2});
  enter(1, {});
  const std::vector<UnitId> others{4, 5, 6};
  EXPECT_NO_THROW(static_cast<void>(cache_.acquire(others)));
}

TEST_F(ExpertGateTest, RefusesWhatIsNotThere) {
  EXPECT_THROW(enter(kLayers, {0}), std::out_of_range);
  EXPECT_THROW(enter(0, {-1}), std::out_of_range);
  EXPECT_THROW(enter(0, {static_cast<std::int32_t>(kExperts)}), std::out_of_range);
}

TEST(RingGate, CountsHitsOfLayersThatHadArrived) {
  testing::FakeStorage storage(kLayers, kLayers);
  std::vector<UnitId> units(kLayers);
  std::iota(units.begin(), units.end(), 0U);
  LayerRing ring(storage.loader, storage.slots, storage.binding, units, 1, storage.clock);
  ring.start();
  RingGate gate(ring, kLayers);
  for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
    gate.enter(layer, {});
    EXPECT_TRUE(storage.binding.shows(layer));
  }
  gate.leave();
  EXPECT_EQ(gate.statistics().hits, kLayers);
  EXPECT_EQ(gate.statistics().misses, 0U);
  EXPECT_EQ(gate.layer_requests().at(1).hits, 1U);
  EXPECT_THROW(gate.enter(kLayers, {}), std::out_of_range);
}

TEST(RingGate, CountsForEachLayerWhatTheRingCountsForAll) {
  testing::FakeStorage storage(kLayers, 1);
  storage.source->set_delay(1000);
  LayerRing ring(storage.loader, storage.slots, storage.binding, {0, 1, 2}, 1, storage.clock);
  ring.start();
  RingGate gate(ring, kLayers);
  gate.enter(0, {});
  storage.source->fail_at(storage.source->calls().size(), testing::FakeSource::Failure::io_error);
  EXPECT_THROW(gate.enter(1, {}), ReadError);
  gate.enter(1, {});
  gate.enter(2, {});
  LayerRequests sum;
  for (const LayerRequests& layer : gate.layer_requests()) {
    EXPECT_EQ(layer.read_bytes, storage.units.unit_bytes(0));
    sum.hits += layer.hits;
    sum.misses += layer.misses;
    sum.stall_ns += layer.stall_ns;
  }
  EXPECT_EQ(gate.layer_requests().at(1).hits + gate.layer_requests().at(1).misses, 2U);  // also the one that failed
  const GateStatistics statistics = gate.statistics();
  EXPECT_EQ(sum.hits, statistics.hits);
  EXPECT_EQ(sum.misses, statistics.misses);
  EXPECT_EQ(sum.stall_ns, statistics.stall_ns);
}

TEST(RingGate, ShowsLayersThatGoAround) {
  testing::FakeStorage storage(kLayers, 1);
  LayerRing ring(storage.loader, storage.slots, storage.binding, {0, 1, 2}, 1, storage.clock);
  ring.start();
  RingGate gate(ring, kLayers);
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      gate.enter(layer, {});
      EXPECT_TRUE(storage.binding.shows(layer));
    }
  }
  std::uint64_t requests = 0;
  for (const LayerRequests& layer : gate.layer_requests()) {
    requests += layer.hits + layer.misses;
  }
  EXPECT_EQ(requests, 2U * kLayers);
  EXPECT_EQ(gate.statistics().hits + gate.statistics().misses, requests);
}

}  // namespace
}  // namespace tierpool
