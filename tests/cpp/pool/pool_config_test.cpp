#include "tierpool/pool/pool_config.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tierpool/base/errors.hpp"
#include "tierpool/device/simulated_device.hpp"

namespace tierpool {
namespace {

[[nodiscard]] std::string refusal_of(const PoolConfig& config) {
  const SimulatedDevice device(kGiB);
  try {
    config.validate(device);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

/// Whether the text holds all of these.
void expect_names(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is missing in: " << text;
  }
}

TEST(PoolConfig, DefaultsAreTheGuides) {
  const PoolConfig config;
  EXPECT_TRUE(config.enabled);
  EXPECT_EQ(config.heap_size_bytes, 256 * kMiB);
  EXPECT_EQ(config.num_heaps, 4u);
  EXPECT_EQ(config.warmup_bytes, (std::vector<std::uint64_t>{32 * kMiB, 128 * kMiB, 512 * kMiB}));
  EXPECT_TRUE(config.track_statistics);
  EXPECT_TRUE(config.log_exhaustion);
  EXPECT_EQ(config.strategy, Strategy::round_robin);
  EXPECT_EQ(config.placement, Placement::good_fit);
  EXPECT_EQ(config.on_exhaustion, OnExhaustion::fallback);
  EXPECT_EQ(config.max_bytes, std::nullopt);
  EXPECT_EQ(refusal_of(config), "");
}

TEST(PoolConfig, HeapOfTheWholeDeviceIsAcceptedAndAByteMoreIsRefused) {
  PoolConfig config;
  config.heap_size_bytes = kGiB;
  EXPECT_EQ(refusal_of(config), "");
  config.heap_size_bytes = kGiB + 1;
  expect_names(refusal_of(config), {"Failed to initialize MetalMemoryPool", "heap_size_mb", "1024MB", "simulated"});
}

TEST(PoolConfig, HeapBelowAUnitIsRefused) {
  PoolConfig config;
  config.heap_size_bytes = kUnitBytes;
  EXPECT_EQ(refusal_of(config), "");
  for (const std::uint64_t bytes : {kUnitBytes - 1, std::uint64_t{0}}) {
    config.heap_size_bytes = bytes;
    expect_names(refusal_of(config),
                 {"Failed to initialize MetalMemoryPool", "heap_size_mb", std::to_string(bytes) + " bytes", "256"});
  }
}

TEST(PoolConfig, NoHeapsAreRefused) {
  PoolConfig config;
  config.num_heaps = 0;
  expect_names(refusal_of(config), {"Failed to initialize MetalMemoryPool", "num_heaps", "got 0", "enabled=False"});
}

TEST(PoolConfig, DisabledPoolNeedsNoHeaps) {
  PoolConfig config;
  config.enabled = false;
  config.num_heaps = 0;
  config.heap_size_bytes = 0;
  EXPECT_EQ(refusal_of(config), "");
}

TEST(OnExhaustion, NamesAndValuesBelongTogether) {
  for (const OnExhaustion choice : {OnExhaustion::fallback, OnExhaustion::raise}) {
    EXPECT_EQ(parse_on_exhaustion(to_string(choice)), choice);
  }
  EXPECT_EQ(to_string(OnExhaustion::raise), "raise");
  EXPECT_THROW(static_cast<void>(parse_on_exhaustion("ignore")), ConfigError);
}

}  // namespace
}  // namespace tierpool
