#include "tierpool/device/linux_memory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

/// A machine of 64 GiB, 40 of them available, whose files are written by the tests.
class LinuxMemory : public ::testing::Test {
 protected:
  LinuxMemory() {
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = std::filesystem::temp_directory_path() / ("tierpool-" + test + "-" + std::to_string(getpid()));
    write("proc/meminfo", "MemTotal:       67108864 kB\nMemFree:        1048576 kB\nMemAvailable:   41943040 kB\n");
  }
  ~LinuxMemory() override {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void write(const std::string& path, std::uint64_t number) { write(path, std::to_string(number) + "\n"); }

  [[nodiscard]] HostMemory read() const { return read_linux_memory(root_.string()); }

  void expect(std::uint64_t total_bytes, std::uint64_t available_bytes) const {
    const HostMemory memory = read();
    EXPECT_EQ(memory.total_bytes, total_bytes);
    EXPECT_EQ(memory.available_bytes, available_bytes);
  }

 private:
  std::filesystem::path root_;
};

TEST_F(LinuxMemory, MachineWithoutGroups) { expect(64 * kGiB, 40 * kGiB); }

TEST_F(LinuxMemory, UnlimitedGroupsDoNotLimit) {
  write("proc/self/cgroup", "4:memory:/\n0::/app\n");
  write("sys/fs/cgroup/app/memory.max", "max\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712u);
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", 30 * kGiB);
  expect(64 * kGiB, 40 * kGiB);
}

TEST_F(LinuxMemory, Version2LimitAndItsRemainder) {
  write("proc/self/cgroup", "0::/app\n");
  write("sys/fs/cgroup/app/memory.max", 8 * kGiB);
  write("sys/fs/cgroup/app/memory.current", 3 * kGiB);
  expect(8 * kGiB, 5 * kGiB);
}

TEST_F(LinuxMemory, FilePagesOfTheGroupCountAsAvailable) {
  write("proc/self/cgroup", "0::/app\n");
  write("sys/fs/cgroup/app/memory.max", 8 * kGiB);
  write("sys/fs/cgroup/app/memory.current", 7 * kGiB);
  write("sys/fs/cgroup/app/memory.stat", "anon 1\nactive_file 2\ninactive_file 4294967296\n");
  expect(8 * kGiB, 5 * kGiB);
}

TEST_F(LinuxMemory, ParentGroupsLimitTheirChildren) {
  write("proc/self/cgroup", "0::/user/app/worker\n");
  write("sys/fs/cgroup/user/app/worker/memory.max", 8 * kGiB);
  write("sys/fs/cgroup/user/app/memory.max", "max\n");
  write("sys/fs/cgroup/user/memory.max", 6 * kGiB);
  write("sys/fs/cgroup/user/memory.current", 5 * kGiB);
  expect(6 * kGiB, 1 * kGiB);
}

TEST_F(LinuxMemory, ContainerSeesItsLimitAtTheMount) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", 2 * kGiB);
  write("sys/fs/cgroup/memory.current", 3 * kGiB);
  expect(2 * kGiB, 0);
}

TEST_F(LinuxMemory, Version1LimitOfAContainerWhosePathIsNotVisible) {
  write("proc/self/cgroup", "9:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", 4 * kGiB);
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", 2 * kGiB);
  write("sys/fs/cgroup/memory/memory.stat", "inactive_file 0\ntotal_inactive_file 1073741824\n");
  expect(4 * kGiB, 3 * kGiB);
}

TEST_F(LinuxMemory, Version1ControllerAmongOthers) {
  write("proc/self/cgroup", "4:hugetlb,memory:/app\n");
  write("sys/fs/cgroup/memory/app/memory.limit_in_bytes", 4 * kGiB);
  expect(4 * kGiB, 4 * kGiB);
}

TEST_F(LinuxMemory, OtherControllersDoNotLimit) {
  write("proc/self/cgroup", "4:memory_like:/app\nnonsense\n\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", 4 * kGiB);
  expect(64 * kGiB, 40 * kGiB);
}

TEST_F(LinuxMemory, UnreadableMemoryInformationFallsBackToTheSystem) {
  write("proc/meminfo", "");
  const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const HostMemory memory = read();
  EXPECT_EQ(memory.total_bytes, static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes);
  EXPECT_GT(memory.available_bytes, 0u);
  EXPECT_LE(memory.available_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace tierpool
