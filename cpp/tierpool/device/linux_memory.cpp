#include "tierpool/device/linux_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // a key of memory.stat: file pages the kernel drops before it refuses memory
};
constexpr CgroupFiles kCgroup1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr CgroupFiles kCgroup2{"memory.max", "memory.current", "inactive_file"};

std::optional<std::uint64_t> parse_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

/// The number behind `key` at the start of a line; an empty key takes the first line.
std::optional<std::uint64_t> read_number(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) {
      return parse_number(std::string_view(line).substr(key.size()));
    }
  }
  return std::nullopt;
}

void apply_limit(const std::string& folder, const CgroupFiles& files, HostMemory& memory) {
  const auto limit = read_number(folder + "/" + files.limit, "");
  if (!limit) {
    return;  // "max", the root group, or a folder that is not visible from here
  }
  const std::uint64_t usage = read_number(folder + "/" + files.usage, "").value_or(0);
  const std::string key = std::string(files.reclaimable) + " ";
  const std::uint64_t reclaimable = read_number(folder + "/memory.stat", key).value_or(0);
  const std::uint64_t used = usage - std::min(usage, reclaimable);
  memory.total_bytes = std::min(memory.total_bytes, *limit);
  memory.available_bytes = std::min(memory.available_bytes, *limit - std::min(*limit, used));
}

/// A limit binds the groups below it, so every folder from the group up to the mount counts.
void apply_limits(const std::string& mount, std::string group, const CgroupFiles& files, HostMemory& memory) {
  while (!group.empty()) {
    if (group != "/") {
      apply_limit(mount + group, files, memory);
    }
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  apply_limit(mount, files, memory);
}

bool names_memory(std::string_view controllers) {
  while (!controllers.empty()) {
    const std::size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == "memory") {
      return true;
    }
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

void apply_cgroups(const std::string& root, HostMemory& memory) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory,cpu:/group", or "0::/group" in version 2
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty()) {
      apply_limits(root + "/sys/fs/cgroup", line.substr(second + 1), kCgroup2, memory);
    } else if (names_memory(controllers)) {
      apply_limits(root + "/sys/fs/cgroup/memory", line.substr(second + 1), kCgroup1, memory);
    }
  }
}

std::uint64_t pages_in_bytes(int name) {
  return static_cast<std::uint64_t>(std::max(sysconf(name), 0L)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

HostMemory read_linux_memory(const std::string& root) {
  const std::string path = root + "/proc/meminfo";
  const auto total_kib = read_number(path, "MemTotal:");
  const auto available_kib = read_number(path, "MemAvailable:");
  HostMemory memory;
  memory.total_bytes = total_kib ? *total_kib * kKiB : pages_in_bytes(_SC_PHYS_PAGES);
  memory.available_bytes = available_kib ? *available_kib * kKiB : pages_in_bytes(_SC_AVPHYS_PAGES);
  memory.available_bytes = std::min(memory.available_bytes, memory.total_bytes);
  apply_cgroups(root, memory);
  return memory;
}

}  // namespace tierpool
