#include "tierpool/device/page_touch.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/device/host_device.hpp"

namespace tierpool {
namespace {

class PageTouch : public ::testing::Test {
 protected:
  ~PageTouch() override { device_.release(range_); }
  [[nodiscard]] std::uint64_t begin() const { return range_.address; }
  [[nodiscard]] std::uint64_t bytes() const { return range_.bytes; }
  [[nodiscard]] unsigned char& at(std::uint64_t offset) const {
    return static_cast<unsigned char*>(pointer_at(range_.address))[offset];
  }

 private:
  HostDevice device_;
  Reservation range_ = device_.reserve(8 * kMiB);
};

TEST_F(PageTouch, KeepsContents) {
  for (std::uint64_t offset = 0; offset < bytes(); offset += 1024) {
    at(offset) = static_cast<unsigned char>(offset / 1024 * 7 + 1);
  }
  touch_pages(begin(), bytes());
  for (std::uint64_t offset = 0; offset < bytes(); offset += 1024) {
    ASSERT_EQ(at(offset), static_cast<unsigned char>(offset / 1024 * 7 + 1)) << offset;
  }
}

TEST_F(PageTouch, LosesNoWriteOfAnotherThread) {
  constexpr int kRounds = 200;
  std::thread toucher([&] {
    for (int i = 0; i < kRounds; ++i) {
      touch_pages(begin(), 16 * kKiB);
    }
  });
  // Every page's first byte is the one that is touched.
  for (int i = 0; i < kRounds * 50; ++i) {
    __atomic_fetch_add(&at(0), 1, __ATOMIC_RELAXED);
  }
  toucher.join();
  EXPECT_EQ(at(0), static_cast<unsigned char>(kRounds * 50));
}

}  // namespace
}  // namespace tierpool
