#include "tierpool/device/cuda_device.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "contracts/device_contract.hpp"
#include "device/cuda_fixture.hpp"
#include "support/captured_log.hpp"
#include "support/child_process.hpp"
#include "tierpool/base/errors.hpp"

namespace tierpool::testing {

struct MakeFakeCuda {
  static constexpr const char* kName = "cuda:0";
  static std::shared_ptr<Device> make() { return make_fake_device<CudaDevice>(); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(FakeCuda, DeviceContract, MakeFakeCuda);

namespace {

constexpr std::uint64_t kGranule = 2 * kMiB;

class CudaDeviceTest : public FakeCudaTest {
 protected:
  [[nodiscard]] CudaDevice make(int index = 0, std::uint64_t chunk_bytes = kGranule) {
    return CudaDevice(index, {.chunk_bytes = chunk_bytes, .virtual_memory = true}, *driver_);
  }
};

unsigned char* bytes_at(std::uint64_t address) { return static_cast<unsigned char*>(pointer_at(address)); }

TEST_F(CudaDeviceTest, IsMadeWithoutAContext) {
  const CudaDevice device = make();
  EXPECT_EQ(fake_cuda_retain_count(0), 0);
  EXPECT_EQ(device.total_bytes(), kFakeCudaBytes);
  EXPECT_EQ(device.granularity_bytes(), kGranule);
  EXPECT_TRUE(device.has_virtual_memory());
  EXPECT_FALSE(device.host_accessible());
  EXPECT_FALSE(device.commits_zeroed());
  EXPECT_EQ(device.fault(), "");
}

TEST_F(CudaDeviceTest, WrongDevicesAndChunksAreRefused) {
  EXPECT_THROW(static_cast<void>(make(2)), DeviceError);
  EXPECT_THROW(static_cast<void>(make(-1)), DeviceError);
  EXPECT_THROW(static_cast<void>(make(0, 0)), ConfigError);
  EXPECT_THROW(static_cast<void>(make(0, kMiB)), ConfigError);
}

TEST_F(CudaDeviceTest, GranulesTakeAndGiveBackMemoryOneByOne) {
  CudaDevice device = make();
  const Reservation range = device.reserve(8 * kGranule);
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  ASSERT_TRUE(device.commit(range.address + kGranule, 4 * kGranule));
  EXPECT_EQ(fake_cuda_used_bytes(0), 4 * kGranule);
  EXPECT_EQ(fake_cuda_calls("cuMemSetAccess"), 1u);
  EXPECT_EQ(device.free_bytes(), kFakeCudaBytes - 4 * kGranule);
  ASSERT_TRUE(device.decommit(range.address + 2 * kGranule, kGranule));
  EXPECT_EQ(fake_cuda_used_bytes(0), 3 * kGranule);
  ASSERT_TRUE(device.decommit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  EXPECT_EQ(fake_cuda_calls("cuMemUnmap"), 3u);  // neighbours went together
  device.release(range);
}

TEST_F(CudaDeviceTest, LargeCommitsComeInPiecesThatGoWithTheLastOfTheirGranules) {
  CudaDevice device = make(0, 4 * kGranule);
  const Reservation range = device.reserve(256 * kGranule);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_calls("cuMemCreate"), 64u);
  std::memset(bytes_at(range.address), 0x5a, 8 * kGranule);
  ASSERT_TRUE(device.decommit(range.address + kGranule, 3 * kGranule));
  EXPECT_EQ(fake_cuda_used_bytes(0), range.bytes);
  ASSERT_TRUE(device.commit(range.address + kGranule, kGranule));
  EXPECT_EQ(fake_cuda_calls("cuMemCreate"), 64u);
  ASSERT_TRUE(device.decommit(range.address, 2 * kGranule));
  EXPECT_EQ(fake_cuda_used_bytes(0), range.bytes - 4 * kGranule);
  EXPECT_EQ(*bytes_at(range.address + 4 * kGranule), 0x5a);
  device.release(range);
}

TEST_F(CudaDeviceTest, ItIsKnownBeforeHowMuchOfARangeTheDriverGetsBack) {
  constexpr std::uint64_t kPiece = 4 * kGranule;
  CudaDevice device = make(0, kPiece);
  for (const std::uint64_t first : {0U, 1U, 4U, 6U}) {
    for (const std::uint64_t count : {1U, 3U, 4U, 7U, 9U, 16U}) {
      const Reservation range = device.reserve(256 * kGranule);
      ASSERT_TRUE(device.commit(range.address, range.bytes));
      const std::uint64_t begin = range.address + first * kGranule;
      const AddressRange part = device.decommittable(begin, count * kGranule);
      EXPECT_TRUE(device.decommit(part.address, part.bytes));
      EXPECT_EQ(fake_cuda_used_bytes(0), range.bytes - part.bytes) << first << " " << count;
      const std::uint64_t first_piece = align_up(first, 4) / 4;
      const std::uint64_t end_piece = std::max(first_piece, (first + count) / 4);
      EXPECT_EQ(part.bytes, (end_piece - first_piece) * kPiece) << first << " " << count;
      EXPECT_TRUE(part.bytes == 0 || part.address == range.address + first_piece * kPiece) << first << " " << count;
      device.release(range);
    }
  }
}

TEST_F(CudaDeviceTest, NoPieceIsMoreThanA64thOfItsCommit) {
  CudaDevice device = make(0, 64 * kGranule);
  const Reservation range = device.reserve(256 * kGranule);
  ASSERT_TRUE(device.commit(range.address, 127 * kGranule));
  EXPECT_EQ(fake_cuda_calls("cuMemCreate"), 127u);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_calls("cuMemCreate"), 127u + 65u);
  device.release(range);
}

TEST_F(CudaDeviceTest, ShortageIsAnAnswerAndLeavesNothingHalfMapped) {
  CudaDevice device = make();
  const Reservation range = device.reserve(kFakeCudaBytes + 4 * kGranule);
  EXPECT_FALSE(device.commit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
  EXPECT_EQ(device.fault(), "");
  EXPECT_TRUE(device.commit(range.address, kFakeCudaBytes));
  EXPECT_FALSE(device.allocate_direct(1, 256));
  EXPECT_FALSE(device.commit(range.address + kFakeCudaBytes, kGranule));
  EXPECT_TRUE(device.decommit(range.address, range.bytes));
  device.release(range);
}

TEST_F(CudaDeviceTest, EveryFailingCallOfACommitIsUndoneAndMayBeRepeated) {
  fake_cuda_set_peers(false);
  for (const char* name : {"cuMemCreate", "cuMemMap", "cuMemSetAccess"}) {
    for (std::uint64_t after = 0; after < (std::string(name) == "cuMemSetAccess" ? 1 : 3); ++after) {
      CudaDevice device = make();
      const Reservation range = device.reserve(3 * kGranule);
      fake_cuda_fail(name, 999, after, 1);
      EXPECT_FALSE(device.commit(range.address, range.bytes)) << name;
      EXPECT_NE(device.fault().find("(999)"), std::string::npos) << name;
      EXPECT_TRUE(device.decommit(range.address, range.bytes));
      EXPECT_TRUE(device.commit(range.address, range.bytes));
      *bytes_at(range.address + range.bytes - 1) = 1;
      device.release(range);
      EXPECT_EQ(fake_cuda_used_bytes(0), 0u) << name;
    }
  }
}

TEST_F(CudaDeviceTest, MemoryTheDriverKeepsIsUsedAgain) {
  CudaDevice device = make();
  const Reservation range = device.reserve(2 * kGranule);
  ASSERT_TRUE(device.commit(range.address, range.bytes));
  fake_cuda_fail("cuMemUnmap", 999, 0, 1);
  EXPECT_FALSE(device.decommit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_used_bytes(0), range.bytes);
  EXPECT_NE(device.fault().find("cuMemUnmap failed"), std::string::npos);
  EXPECT_FALSE(device.allocate_direct(kFakeCudaBytes, 256));
  EXPECT_EQ(device.fault(), "");  // the last failure was a shortage
  EXPECT_TRUE(device.commit(range.address, range.bytes));
  EXPECT_EQ(fake_cuda_calls("cuMemCreate"), 2u);
  device.release(range);
}

TEST_F(CudaDeviceTest, WithoutVirtualMemoryAReservationTakesAllOfItsMemory) {
  for (const int index : {0, 1}) {
    CudaDevice device(index, {.chunk_bytes = kGranule, .virtual_memory = index == 1}, *driver_);
    EXPECT_FALSE(device.has_virtual_memory());
    EXPECT_EQ(device.commit_scope(), CommitScope::always);
    const Reservation range = device.reserve(3 * kGranule + 1);
    EXPECT_EQ(range.bytes, 4 * kGranule);
    EXPECT_EQ(range.address % kGranule, 0u);
    EXPECT_GE(fake_cuda_used_bytes(index), 4 * kGranule);
    EXPECT_TRUE(device.commit(range.address, range.bytes));
    *bytes_at(range.address + range.bytes - 1) = 1;
    EXPECT_FALSE(device.decommit(range.address, range.bytes));
    EXPECT_TRUE(device.decommit(range.address, 0));
    EXPECT_THROW(static_cast<void>(device.reserve(kFakeCudaBytes)), DeviceError);
    device.release(range);
    EXPECT_EQ(fake_cuda_used_bytes(index), 0u);
  }
}

TEST_F(CudaDeviceTest, StrangeRangesAreRefused) {
  CudaDevice device = make();
  const Reservation range = device.reserve(2 * kGranule);
  EXPECT_FALSE(device.commit(range.address - kGranule, kGranule));
  EXPECT_FALSE(device.commit(range.address, 3 * kGranule));
  EXPECT_FALSE(device.decommit(range.address + range.bytes + kGranule, kGranule));
  device.release(range);
  EXPECT_FALSE(device.commit(range.address, kGranule));
  device.release(range);
}

TEST_F(CudaDeviceTest, CopiesHaveArrivedWhenTheyReturn) {
  CudaDevice device = make();
  const DirectAllocation first = device.allocate_direct(1000, 256);
  const DirectAllocation second = device.allocate_direct(1000, 512);
  std::memset(bytes_at(first.address), 0x21, 1000);
  device.copy(second.address, first.address, 1000);
  EXPECT_EQ(*bytes_at(second.address + 999), 0x21);
  EXPECT_EQ(fake_cuda_calls("cuStreamSynchronize"), 1u);
  fake_cuda_fail("cuMemcpy", 719, 0, 1);
  EXPECT_THROW(device.copy(second.address, first.address, 1000), DeviceError);
  device.free_direct(first.address, 1000, 256);
  device.free_direct(second.address, 1000, 512);
}

TEST_F(CudaDeviceTest, AResetDeviceIsNamedAndAnswersEveryCall) {
  const CapturedLog log;
  CudaDevice device = make();
  const Reservation range = device.reserve(2 * kGranule);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  const DirectAllocation direct = device.allocate_direct(1, 256);
  fake_cuda_reset_device(0);
  EXPECT_FALSE(device.commit(range.address, range.bytes));
  EXPECT_NE(device.fault().find("was reset"), std::string::npos);
  EXPECT_FALSE(device.allocate_direct(1, 256));
  EXPECT_FALSE(device.decommit(range.address, kGranule));
  EXPECT_THROW(static_cast<void>(device.free_bytes()), DeviceError);
  EXPECT_THROW(static_cast<void>(device.reserve(kGranule)), DeviceError);
  EXPECT_THROW(device.copy(range.address, direct.address, 1), DeviceError);
  EXPECT_TRUE(log.records().empty());
  device.free_direct(direct.address, 1, 256);
  device.release(range);
  ASSERT_EQ(log.records().size(), 2u);
  EXPECT_NE(log.records()[0].message.find("Could not give back 1B on cuda:0: cuMemFree failed"), std::string::npos)
      << log.records()[0].message;
}

TEST_F(CudaDeviceTest, AResetDeviceIsToldFromItsSuccessorUnderTheSameHandle) {
  const CapturedLog log;
  std::unique_ptr<CudaDevice> device = std::make_unique<CudaDevice>(0, CudaDeviceOptions{}, *driver_);
  const Reservation range = device->reserve(2 * kGranule);
  ASSERT_TRUE(device->commit(range.address, kGranule));
  const EventHandle event = device->streams()->create_event();
  fake_cuda_reset_device(0);
  CudaDevice successor = make();
  const Reservation new_range = successor.reserve(kGranule);
  EXPECT_FALSE(device->commit(range.address, range.bytes));
  EXPECT_THROW(static_cast<void>(device->reserve(kGranule)), DeviceError);
  EXPECT_THROW(device->streams()->require_stream(kDefaultStream), DeviceError);
  EXPECT_EQ(device->streams()->query_event(event), EventState::failed);
  const std::uint64_t calls = fake_cuda_calls("cuEventDestroy_v2");
  device->streams()->destroy_event(event);  // the driver would take its handle for one of its own
  EXPECT_EQ(fake_cuda_calls("cuEventDestroy_v2"), calls);
  device->release(range);
  device.reset();
  EXPECT_EQ(fake_cuda_retain_count(0), 1);
  EXPECT_TRUE(successor.commit(new_range.address, kGranule));
  successor.release(new_range);
}

TEST_F(CudaDeviceTest, AContextThatCannotTellItsIdIsNotTakenForGone) {
  CudaDevice device = make();
  const Reservation range = device.reserve(kGranule);
  fake_cuda_fail("cuCtxGetId", 700, 0, 2);
  EXPECT_FALSE(device.commit(range.address, kGranule));
  EXPECT_EQ(device.fault().find("was reset"), std::string::npos) << device.fault();
  EXPECT_FALSE(device.streams()->synchronize_device());
  EXPECT_TRUE(device.commit(range.address, kGranule));
  device.release(range);
}

TEST_F(CudaDeviceTest, PeersThatCannotBeGivenAccessAreDoneWithout) {
  CudaDevice device = make();
  const Reservation range = device.reserve(kGranule);
  fake_cuda_fail("cuMemSetAccess", 800, 0, 1);
  EXPECT_TRUE(device.commit(range.address, kGranule));
  *bytes_at(range.address) = 1;
  EXPECT_NE(device.fault().find("cuMemSetAccess for peers"), std::string::npos) << device.fault();
  device.release(range);
}

TEST_F(CudaDeviceTest, PeersReachItsMemoryAsThatOfTheDriver) {
  for (const bool peers : {true, false}) {
    fake_cuda_set_peers(peers);
    CudaDevice device = make();
    CudaDevice other(1, {}, *driver_);
    const Reservation range = device.reserve(2 * kGranule);
    ASSERT_TRUE(device.commit(range.address, range.bytes));
    const DirectAllocation direct = other.allocate_direct(kGranule, 256);
    std::memset(bytes_at(range.address), 0x42, kGranule);
    if (peers) {
      other.streams()->copy_async(direct.address, range.address, kGranule, kDefaultStream);
      EXPECT_EQ(*bytes_at(direct.address), 0x42);
      std::memset(bytes_at(direct.address), 0, kGranule);
    }
    other.streams()->copy_from_device_async(direct.address, range.address, kGranule, kDefaultStream, *device.streams());
    EXPECT_EQ(*bytes_at(direct.address + kGranule - 1), 0x42);
    device.streams()->copy_from_device_async(range.address + kGranule, direct.address, kGranule, kPerThreadStream,
                                             *other.streams());
    EXPECT_EQ(*bytes_at(range.address + kGranule), 0x42);
    other.free_direct(direct.address, kGranule, 256);
    device.release(range);
  }
}

TEST_F(CudaDeviceTest, AForkedChildGetsNothingAndGivesNothingBack) {
  CudaDevice device = make();
  const Reservation range = device.reserve(kGranule);
  ASSERT_TRUE(device.commit(range.address, kGranule));
  const std::uint64_t calls = fake_cuda_calls("cuMemUnmap");
  EXPECT_EQ(exit_status_of_child([&] {
              bool refused = !device.commit(range.address, kGranule) && !device.decommit(range.address, kGranule);
              refused = refused && !device.allocate_direct(1, 256);
              refused = refused && device.fault().find("forked child") != std::string::npos;
              try {
                static_cast<void>(device.reserve(kGranule));
                refused = false;
              } catch (const DeviceError&) {
                device.release(range);
              }
              return refused && fake_cuda_calls("cuMemUnmap") == calls ? 0 : 1;
            }),
            0);
  device.release(range);
}

// Random commits and decommits against the granules a heap believes to be committed.
TEST_F(CudaDeviceTest, RandomUseKeepsContentsAndTakesNoMoreThanItsChunks) {
  for (const std::uint64_t chunk_bytes : {kGranule, 2 * kGranule, 64 * kGranule}) {
    constexpr std::uint64_t kGranules = 400;
    std::mt19937_64 random(chunk_bytes);
    CudaDevice device = make(0, chunk_bytes);
    const Reservation range = device.reserve(kGranules * kGranule);
    std::vector<int> marks(kGranules, -1);  // what the first byte of a committed granule holds
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t begin = random() % kGranules;
      const std::uint64_t count = 1 + random() % (kGranules - begin);
      const std::uint64_t address = range.address + begin * kGranule;
      const bool commits = random() % 2 == 0;
      ASSERT_TRUE(commits ? device.commit(address, count * kGranule) : device.decommit(address, count * kGranule));
      for (std::uint64_t granule = begin; granule < begin + count; ++granule) {
        if (commits && marks[granule] < 0) {
          marks[granule] = static_cast<int>(random() % 200);
          *bytes_at(range.address + granule * kGranule) = static_cast<unsigned char>(marks[granule]);
        } else if (!commits) {
          marks[granule] = -1;
        }
      }
      for (std::uint64_t granule = 0; granule < kGranules; ++granule) {
        ASSERT_TRUE(marks[granule] < 0 || *bytes_at(range.address + granule * kGranule) == marks[granule]);
      }
    }
    ASSERT_TRUE(device.decommit(range.address, range.bytes));
    EXPECT_EQ(fake_cuda_used_bytes(0), 0u);
    device.release(range);
  }
}

}  // namespace
}  // namespace tierpool::testing
