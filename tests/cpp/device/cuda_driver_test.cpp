#include "tierpool/device/cuda_driver.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "device/cuda_fixture.hpp"
#include "support/child_process.hpp"
#include "tierpool/base/errors.hpp"
#include "tierpool/device/cuda_context.hpp"

namespace tierpool::testing {
namespace {

using CudaDriverTest = FakeCudaTest;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string refusal(const CudaDriver& driver, int index) {
  try {
    driver.require_device(index);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST_F(CudaDriverTest, TellsWhatItFinds) {
  EXPECT_TRUE(driver_->is_available());
  EXPECT_EQ(driver_->unavailable_reason(), "");
  EXPECT_EQ(driver_->device_count(), 2);
  EXPECT_EQ(driver_->version(), 12040);
  EXPECT_EQ(driver_->device_name(1), "Fake GPU 1");
  EXPECT_EQ(refusal(*driver_, 1), "");
}

TEST_F(CudaDriverTest, AMissingLibraryIsAReason) {
  const CudaDriver driver("/nowhere/libcuda.so.1");
  EXPECT_FALSE(driver.is_available());
  EXPECT_TRUE(contains(driver.unavailable_reason(), "no CUDA driver library: /nowhere/libcuda.so.1"));
  EXPECT_TRUE(contains(driver.unavailable_reason(), "install the NVIDIA driver"));
  EXPECT_EQ(refusal(driver, 0), "Device cuda:0 is not available: " + driver.unavailable_reason());
}

TEST_F(CudaDriverTest, ALibraryWithoutTheVersionInItsNameIsFoundToo) {
  const std::filesystem::path folder = ::testing::TempDir() + "only_libcuda_so_" + std::to_string(getpid());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::filesystem::create_symlink(std::filesystem::absolute(kFakeCudaLibrary), folder / "libcuda.so");
  EXPECT_EQ(CudaDriver(folder / "libcuda.so.1").unavailable_reason(), "");
  EXPECT_FALSE(CudaDriver(folder / "libcuda.so.2").is_available());
  std::filesystem::remove_all(folder);
}

TEST_F(CudaDriverTest, ALibraryWithoutTheFunctionsIsAReason) {
  const CudaDriver driver("libm.so.6");
  EXPECT_TRUE(contains(driver.unavailable_reason(), "too old: its library has no cuInit"));
}

TEST_F(CudaDriverTest, AnOldDriverIsAReason) {
  fake_cuda_set_version(10020);
  const CudaDriver driver(kFakeCudaLibrary);
  EXPECT_TRUE(contains(driver.unavailable_reason(), "it is for CUDA 10.2; install one for CUDA 11.0"));
}

TEST_F(CudaDriverTest, NoDeviceIsAReason) {
  fake_cuda_set_device_count(0);
  EXPECT_TRUE(contains(CudaDriver(kFakeCudaLibrary).unavailable_reason(), "sees no GPU"));
  fake_cuda_restart();
  fake_cuda_fail("cuInit", 999, 0, 1);
  EXPECT_TRUE(
      contains(CudaDriver(kFakeCudaLibrary).unavailable_reason(), "cuInit failed: CUDA_ERROR_OF_THE_FAKE (999)"));
  fake_cuda_fail("cuDeviceGetCount", 999, 0, 1);
  EXPECT_TRUE(contains(CudaDriver(kFakeCudaLibrary).unavailable_reason(), "cuDeviceGetCount failed"));
}

TEST_F(CudaDriverTest, AWrongIndexIsNamedWithTheLastOne) {
  for (const int index : {-1, 2, 100}) {
    EXPECT_EQ(refusal(*driver_, index), "Device cuda:" + std::to_string(index) +
                                            " is not available: the driver sees 2 devices, the last is cuda:1");
    EXPECT_THROW(static_cast<void>(driver_->device_name(index)), DeviceError);
  }
}

TEST_F(CudaDriverTest, ErrorsHaveNameNumberTextAndRemedy) {
  EXPECT_EQ(driver_->describe("cuMemAlloc", kCuOutOfMemory),
            "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (2), as ordered");
  EXPECT_TRUE(contains(driver_->describe("cuMemAlloc", kCuContextIsDestroyed), "build the pool anew"));
}

TEST_F(CudaDriverTest, AForkedChildIsRefused) {
  EXPECT_EQ(exit_status_of_child([&] {
              const bool refused = !driver_->is_available() && contains(refusal(*driver_, 0), "forked child");
              return refused ? 0 : 1;
            }),
            0);
  EXPECT_TRUE(driver_->is_available());
}

TEST_F(CudaDriverTest, AChildOfAProcessThatNeverHadItMayStartIt) {
  fake_cuda_set_device_count(0);
  const CudaDriver none(kFakeCudaLibrary);
  EXPECT_EQ(exit_status_of_child([&] {
              fake_cuda_set_device_count(2);
              return contains(none.unavailable_reason(), "no GPU") && CudaDriver(kFakeCudaLibrary).is_available() ? 0
                                                                                                                  : 1;
            }),
            0);
}

TEST_F(CudaDriverTest, TheProcessHasOneOfItsOwn) {
  std::vector<CudaDriver*> found(4, nullptr);
  std::vector<std::thread> threads;
  for (CudaDriver*& driver : found) {
    threads.emplace_back([&driver] { driver = &CudaDriver::instance(); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(found, std::vector<CudaDriver*>(4, &CudaDriver::instance()));
  EXPECT_EQ(CudaDriver::instance().is_available(), CudaDriver::instance().unavailable_reason().empty());
}

CuContext current(const CudaDriver& driver) {
  CuContext context = nullptr;
  driver.functions().ctx_get_current(&context);
  return context;
}

TEST_F(CudaDriverTest, ThePrimaryContextIsRetainedOnFirstUseAndLeavesTheCallersAlone) {
  CuContext foreign = fake_cuda_create_context(1);
  driver_->functions().ctx_push_current(foreign);
  {
    CudaContext context(*driver_, 0);
    EXPECT_EQ(fake_cuda_retain_count(0), 0);
    for (int i = 0; i < 3; ++i) {
      const CudaContext::Scope scope(context);
      EXPECT_TRUE(scope);
      EXPECT_EQ(current(*driver_), context.get());
    }
    EXPECT_EQ(fake_cuda_retain_count(0), 1);
    EXPECT_EQ(current(*driver_), foreign);
  }
  EXPECT_EQ(fake_cuda_retain_count(0), 0);
  driver_->functions().ctx_pop_current(&foreign);
}

TEST_F(CudaDriverTest, ACurrentContextOfTheDeviceIsKept) {
  for (const bool primary_active : {false, true}) {
    CuContext primary = nullptr;
    if (primary_active) {
      driver_->functions().primary_ctx_retain(&primary, 0);
    }
    CuContext own = fake_cuda_create_context(0);
    driver_->functions().ctx_push_current(own);
    {
      CudaContext context(*driver_, 0);
      EXPECT_TRUE(CudaContext::Scope(context));
      EXPECT_EQ(context.get(), own);
    }
    EXPECT_EQ(fake_cuda_retain_count(0), primary_active ? 1 : 0);
    driver_->functions().ctx_pop_current(&own);
  }
}

TEST_F(CudaDriverTest, CaptureModesAreRelaxedInAScopeAndThenAsBefore) {
  CudaContext context(*driver_, 0);
  int mode = 1;
  driver_->functions().thread_exchange_stream_capture_mode(&mode);
  {
    const CudaContext::Scope scope(context);
    int inside = kCuCaptureRelaxed;
    driver_->functions().thread_exchange_stream_capture_mode(&inside);
    EXPECT_EQ(inside, kCuCaptureRelaxed);
  }
  driver_->functions().thread_exchange_stream_capture_mode(&mode);
  EXPECT_EQ(mode, 1);
}

TEST_F(CudaDriverTest, AContextThatCannotBeMadeIsTriedAgain) {
  CudaContext context(*driver_, 0);
  fake_cuda_fail("cuDevicePrimaryCtxRetain", kCuOutOfMemory, 0, 1);
  EXPECT_EQ(CudaContext::Scope(context).result(), kCuOutOfMemory);
  EXPECT_TRUE(CudaContext::Scope(context));
}

}  // namespace
}  // namespace tierpool::testing
