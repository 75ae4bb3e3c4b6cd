#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "support/storage_fixture.hpp"
#include "tierpool/storage/expert_cache.hpp"
#include "tierpool/storage/lrfu_policy.hpp"

namespace tierpool::testing {

/// A cache over a file in memory, by LRU unless told otherwise, that must give everything back.
struct CachedStorage : FakeStorage {
  CachedStorage(std::uint32_t unit_count, std::uint32_t slot_count, std::uint32_t threads = 2,
                std::unique_ptr<EvictionPolicy> policy = nullptr)
      : FakeStorage(unit_count, slot_count, threads),
        cache(loader, slots, binding, policy ? std::move(policy) : std::make_unique<LrfuPolicy>(unit_count, 0), clock) {
  }

  ~CachedStorage() {
    cache.close();
    expect_everything_given_back();
  }
  CachedStorage(const CachedStorage&) = delete;
  CachedStorage& operator=(const CachedStorage&) = delete;

  void use(const std::vector<UnitId>& requests) { static_cast<void>(cache.acquire(requests)); }
  [[nodiscard]] bool shows(const std::vector<UnitId>& requests) const {
    return std::all_of(requests.begin(), requests.end(), [&](UnitId unit) { return binding.shows(unit); });
  }

  ExpertCache cache;
};

}  // namespace tierpool::testing
