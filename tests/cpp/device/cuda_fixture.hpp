#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "device/fake_cuda_driver.hpp"
#include "tierpool/device/cuda_driver.hpp"
#include "tierpool/device/device.hpp"

namespace tierpool::testing {

/// The fake driver, opened anew.
[[nodiscard]] inline std::unique_ptr<CudaDriver> open_fake_cuda() {
  fake_cuda_restart();
  return std::make_unique<CudaDriver>(kFakeCudaLibrary);
}

/// A device on a fake driver of its own, for the contract.
template <typename CudaKind>
[[nodiscard]] std::shared_ptr<Device> make_fake_device() {
  static CudaDriver driver(kFakeCudaLibrary);
  fake_cuda_restart();
  return std::make_shared<CudaKind>(0, typename CudaKind::Options{}, driver);
}

/// What works on the fake driver, whatever it does, leaves nothing behind and asks nothing impossible of it.
class FakeCudaTest : public ::testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
    EXPECT_EQ(fake_cuda_used_bytes(1), 0u);
    EXPECT_EQ(fake_cuda_reserved_bytes(), 0u);
    EXPECT_EQ(fake_cuda_pinned_bytes(), 0u);
    EXPECT_EQ(fake_cuda_event_count(), 0u);
    EXPECT_EQ(fake_cuda_misuse_count(), 0u);
  }

  const std::unique_ptr<CudaDriver> driver_ = open_fake_cuda();
};

}  // namespace tierpool::testing
