#include "tierpool/storage/layer_ring.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/child_process.hpp"
#include "support/storage_fixture.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool {
namespace {

using testing::FakeSource;

struct RingStorage : testing::FakeStorage {
  RingStorage(std::uint32_t layer_count, std::uint32_t slot_count, std::uint32_t depth, std::uint32_t threads = 2)
      : FakeStorage(layer_count, slot_count, threads),
        ring(std::make_unique<LayerRing>(loader, slots, binding, all_layers(layer_count), depth, clock)) {}

  ~RingStorage() {
    ring.reset();
    expect_everything_given_back();
  }
  RingStorage(const RingStorage&) = delete;
  RingStorage& operator=(const RingStorage&) = delete;

  // Not in the order of their numbers, so that layers and units cannot be confused.
  static UnitId unit_of(std::uint32_t layer, std::uint32_t layer_count) { return layer_count - 1 - layer; }
  static std::vector<UnitId> all_layers(std::uint32_t layer_count) {
    std::vector<UnitId> layers;
    for (std::uint32_t layer = 0; layer < layer_count; ++layer) {
      layers.push_back(unit_of(layer, layer_count));
    }
    return layers;
  }
  [[nodiscard]] bool shows(std::uint32_t layer) const { return binding.shows(unit_of(layer, units.unit_count())); }
  [[nodiscard]] bool shows_pinned() const {
    for (std::uint32_t layer = 0; layer < units.unit_count(); ++layer) {
      if (ring->is_pinned(layer) && !shows(layer)) {
        return false;
      }
    }
    return true;
  }
  void wait_until_read(std::uint64_t bytes) const {
    while (reader.statistics().read_bytes < bytes) {
      std::this_thread::yield();
    }
  }

  std::unique_ptr<LayerRing> ring;
};

TEST(InterleavePinned, SpreadsThemAsEvenlyAsLayersAllow) {
  for (std::uint32_t layers = 1; layers <= 40; ++layers) {
    for (std::uint32_t pinned = 0; pinned <= layers; ++pinned) {
      const std::vector<std::uint8_t> is_pinned = interleave_pinned(layers, pinned);
      ASSERT_EQ(is_pinned.size(), layers);
      ASSERT_EQ(std::accumulate(is_pinned.begin(), is_pinned.end(), 0u), pinned);
      // Any stretch of the endless round holds its share, to less than one layer.
      std::vector<std::uint32_t> before(2 * layers + 1);
      for (std::uint32_t i = 0; i < 2 * layers; ++i) {
        before[i + 1] = before[i] + is_pinned[i % layers];
      }
      for (std::uint32_t from = 0; from < layers; ++from) {
        for (std::uint32_t to = from; to <= from + layers; ++to) {
          const double share = static_cast<double>(to - from) * pinned / layers;
          ASSERT_LT(before[to] - before[from], share + 1) << layers << " layers, " << pinned << " pinned";
          ASSERT_GT(before[to] - before[from], share - 1) << layers << " layers, " << pinned << " pinned";
        }
      }
    }
  }
  EXPECT_TRUE(interleave_pinned(0, 0).empty());
}

TEST(LayerRing, EveryLayerIsThereInEveryRoundAndReadOnceInIt) {
  constexpr std::uint32_t kLayers = 11;
  for (std::uint32_t slots = 1; slots < kLayers; ++slots) {
    for (std::uint32_t depth = 1; depth <= slots; ++depth) {
      RingStorage storage(kLayers, slots, depth);
      storage.ring->start();
      EXPECT_EQ(storage.ring->streamed_count(), kLayers - slots + depth);
      constexpr std::uint64_t kRounds = 6;
      for (std::uint64_t round = 0; round < kRounds; ++round) {
        for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
          storage.ring->enter(layer);
          ASSERT_TRUE(storage.shows(layer)) << "layer " << layer << ", " << slots << " slots, depth " << depth;
          ASSERT_TRUE(storage.shows_pinned());
        }
      }
      const RingStatistics statistics = storage.ring->statistics();
      EXPECT_EQ(statistics.requests, kRounds * kLayers);
      const std::uint64_t streamed_uses = kRounds * storage.ring->streamed_count();
      EXPECT_EQ(statistics.read_bytes, (streamed_uses + slots - depth) * 3 * storage.page);
      EXPECT_EQ(statistics.reused_bytes, kRounds * (slots - depth) * 3 * storage.page);
      EXPECT_EQ(statistics.requested_bytes, kRounds * kLayers * 3 * storage.page);
    }
  }
}

TEST(LayerRing, ReadsOnFromTheLastLayerToTheFirst) {
  RingStorage storage(8, 4, 2);  // every other layer is pinned
  storage.ring->start();
  std::vector<std::uint32_t> streamed;
  for (std::uint32_t layer = 0; layer < 8; ++layer) {
    if (!storage.ring->is_pinned(layer)) {
      streamed.push_back(layer);
    }
  }
  ASSERT_EQ(streamed.size(), 6u);
  for (const std::uint32_t layer : streamed) {
    storage.ring->enter(layer);
  }
  // The last layer is in use: what fills the other place is the first one of the next round.
  const std::uint64_t front_offset = 2 * storage.page * RingStorage::unit_of(streamed.front(), 8);
  std::uint64_t reads_of_first = 0;
  while (reads_of_first < 2) {
    std::this_thread::yield();
    reads_of_first = 0;
    for (const FakeSource::Call& call : storage.source->calls()) {
      reads_of_first += call.offset_bytes == front_offset ? 1 : 0;
    }
  }
  EXPECT_TRUE(storage.shows(streamed.back()));
}

TEST(LayerRing, APinnedLayerLetsTheOneBeforeItGo) {
  RingStorage storage(4, 2, 1);
  storage.ring->start();
  std::uint32_t streamed = 0;
  while (storage.ring->is_pinned(streamed) || !storage.ring->is_pinned(streamed + 1)) {
    ++streamed;
  }
  storage.ring->enter(streamed);
  EXPECT_TRUE(storage.shows(streamed));
  storage.ring->enter(streamed + 1);
  EXPECT_FALSE(storage.shows(streamed));
  EXPECT_TRUE(storage.shows(streamed + 1));
}

// The layer in use is left alone by everything that is read ahead.
TEST(LayerRing, TheLayerInUseStaysUntilTheNextIsEntered) {
  RingStorage storage(6, 3, 3);
  storage.ring->start();
  for (std::uint32_t step = 0; step < 30; ++step) {
    storage.ring->enter(step % 6);
    storage.ring->enter(step % 6);  // again, as a second part of a batch would
    storage.wait_until_read((step + 3) * 3 * storage.page - 2 * 99 * (step / 6 + 1));  // all that is ahead
    ASSERT_TRUE(storage.shows(step % 6)) << step;
  }
}

TEST(LayerRing, AnyLayerCanBeEnteredAfterAForwardThatBrokeOff) {
  std::mt19937 random(4);
  for (int shape = 0; shape < 20; ++shape) {
    const std::uint32_t layers = 3 + static_cast<std::uint32_t>(random() % 9);
    const std::uint32_t slots = 1 + static_cast<std::uint32_t>(random() % (layers - 1));
    RingStorage storage(layers, slots, 1 + static_cast<std::uint32_t>(random() % slots));
    storage.ring->start();
    for (int step = 0; step < 150; ++step) {
      const auto layer = static_cast<std::uint32_t>(random() % layers);
      storage.ring->enter(layer);
      ASSERT_TRUE(storage.shows(layer)) << step;
      ASSERT_TRUE(storage.shows_pinned());
    }
  }
}

TEST(LayerRing, WithASlotForEveryLayerNothingIsReadTwice) {
  RingStorage storage(5, 5, 2);
  storage.ring->start();
  EXPECT_EQ(storage.ring->streamed_count(), 0u);
  for (std::uint32_t step = 0; step < 20; ++step) {
    storage.ring->enter(step % 5);
    EXPECT_TRUE(storage.shows_pinned());
  }
  EXPECT_EQ(storage.source->calls().size(), 10u);
  EXPECT_EQ(storage.ring->statistics().ready, 20u);
}

TEST(LayerRing, AfterAFailureWhatFailedBesideItIsReadAnew) {
  RingStorage storage(4, 3, 3);
  for (std::uint64_t number = 0; number < 3; ++number) {  // one read of each layer, and no more of it
    storage.source->fail_at(number, FakeSource::Failure::io_error);
  }
  storage.ring->start();
  EXPECT_THROW(storage.ring->enter(0), ReadError);
  while (storage.reader.statistics().failed < 2) {
    std::this_thread::yield();
  }
  storage.source->recover();
  for (std::uint32_t step = 0; step < 8; ++step) {
    EXPECT_NO_THROW(storage.ring->enter(step % 4)) << step;
    EXPECT_TRUE(storage.shows(step % 4));
  }
}

TEST(LayerRing, AFailureAtEveryReadIsRaisedAndTheLayerCanBeEnteredAgain) {
  for (const auto failure : {FakeSource::Failure::io_error, FakeSource::Failure::short_read}) {
    for (std::uint64_t point = 0; point < 60; ++point) {
      RingStorage storage(7, 4, 2);
      storage.source->fail_at(point, failure);
      std::uint64_t failures = 0;
      const auto insist = [&](const auto& call) {
        try {
          call();
        } catch (const ReadError&) {
          ++failures;
          call();
        }
      };
      insist([&] { storage.ring->start(); });
      for (std::uint32_t step = 0; step < 70; ++step) {
        insist([&] { storage.ring->enter(step % 7); });
        ASSERT_TRUE(storage.shows(step % 7));
        ASSERT_TRUE(storage.shows_pinned());
      }
      ASSERT_EQ(failures, 1u) << "failure at read " << point;
    }
  }
}

TEST(LayerRing, ASlotIsNotFilledWhileACancelledReadStillWritesToIt) {
  RingStorage storage(6, 2, 2, 2);
  storage.source->hold({2});  // the first two pieces are those of the first layer
  storage.ring->start();
  storage.ring->enter(0);
  storage.source->wait_for_calls(4);
  std::thread user([&] {
    storage.ring->enter(3);  // takes the place of layer 1
    EXPECT_TRUE(storage.shows(3));
  });
  while (storage.ring->statistics().requests < 2) {
    std::this_thread::yield();
  }
  const ReaderStatistics statistics = storage.reader.statistics();
  EXPECT_EQ(statistics.requests - statistics.joined, 2u);
  storage.source->release(2);
  user.join();
}

TEST(LayerRing, CancelEndsAWaitAndTheNextCallBeginsAnew) {
  RingStorage storage(6, 3, 3, 1);
  storage.source->hold_from(0);
  storage.ring->start();  // nothing is pinned
  std::thread user([&] { EXPECT_THROW(storage.ring->enter(0), CancelledError); });
  while (storage.ring->statistics().requests == 0) {
    std::this_thread::yield();
  }
  storage.ring->cancel();
  storage.source->let_go();
  user.join();
  for (std::uint32_t step = 0; step < 12; ++step) {
    storage.ring->enter(step % 6);
    EXPECT_TRUE(storage.shows(step % 6));
  }
}

TEST(LayerRing, CancelEndsAStartAndTheNextOneWorks) {
  RingStorage storage(6, 5, 1, 1);
  storage.source->hold_from(0);
  std::thread user([&] { EXPECT_THROW(storage.ring->start(), CancelledError); });
  storage.source->wait_for_calls(1);
  while (storage.reader.statistics().requests < 4) {
    std::this_thread::yield();
  }
  storage.ring->cancel();
  storage.source->let_go();
  user.join();
  ASSERT_TRUE(storage.ring->is_pinned(1));
  EXPECT_THROW(storage.ring->enter(1), Error);  // not loaded
  storage.ring->start();
  EXPECT_TRUE(storage.shows_pinned());
}

TEST(LayerRing, CloseGivesEverythingBackAndRefusesMore) {
  RingStorage storage(6, 4, 2, 1);
  storage.ring->start();
  storage.ring->enter(0);
  storage.source->hold_from(storage.source->calls().size());
  storage.ring->enter(0);
  std::thread release([&] { storage.source->let_go(); });
  storage.ring->close();
  release.join();
  EXPECT_EQ(storage.binding.shown_count(), 0u);
  EXPECT_EQ(storage.slots.free_count(), 4u);
  EXPECT_THROW(storage.ring->enter(0), CancelledError);
  EXPECT_THROW(storage.ring->start(), CancelledError);
  storage.ring->close();
}

TEST(LayerRing, WhatCannotBeShownOrHiddenIsRaised) {
  RingStorage storage(6, 2, 2);
  storage.ring->start();
  storage.binding.fail_binds(1);
  EXPECT_THROW(storage.ring->enter(0), DeviceError);
  storage.ring->enter(0);
  storage.binding.fail_unbinds(1);
  EXPECT_THROW(storage.ring->enter(1), DeviceError);
  EXPECT_TRUE(storage.shows(0));  // its slot was not filled again
  storage.ring->enter(1);
  EXPECT_TRUE(storage.shows(1));
  EXPECT_FALSE(storage.shows(0));
}

TEST(LayerRing, RefusesWhatMakesNoRing) {
  testing::FakeStorage storage(6, 3);
  const auto make = [&](std::uint32_t depth) {
    const LayerRing ring(storage.loader, storage.slots, storage.binding, RingStorage::all_layers(6), depth,
                         storage.clock);
  };
  EXPECT_THROW(make(0), ConfigError);
  EXPECT_THROW(make(4), ConfigError);
  EXPECT_EQ(storage.slots.free_count(), 3u);
  const SlotId slot = storage.slots.take().value();
  EXPECT_THROW(make(2), ConfigError);
  storage.slots.give_back(slot);
  make(2);
  EXPECT_EQ(storage.slots.free_count(), 3u);
}

TEST(LayerRing, AForkedChildIsToldInsteadOfWaitingForEver) {
  RingStorage storage(6, 3, 2);
  storage.ring->start();
  const int status = testing::exit_status_of_child([&] {
    bool told = false;
    try {
      storage.ring->enter(0);
    } catch (const Error& error) {
      told = std::string(error.what()).find("forked") != std::string::npos;
    }
    storage.ring->cancel();
    storage.ring->close();
    return told ? 7 : 1;
  });
  EXPECT_EQ(status, 7);
}

TEST(LayerRing, RefusesUnknownLayers) {
  RingStorage storage(6, 3, 2);
  storage.ring->start();
  EXPECT_THROW(storage.ring->enter(6), std::out_of_range);
  EXPECT_EQ(storage.ring->statistics().requests, 0u);
}

}  // namespace
}  // namespace tierpool
