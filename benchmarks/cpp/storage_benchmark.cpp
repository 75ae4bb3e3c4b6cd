// Fetching 1 MiB units of a file at random: DirectReader beside what else a program could do, and refilling memory that
// is recycled beside memory that is given back. The file is not in the page cache when a row begins.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"
#include "tierpool/base/clock.hpp"
#include "tierpool/device/host_device.hpp"
#include "tierpool/storage/direct_reader.hpp"
#include "tierpool/storage/file_source.hpp"
#include "tierpool/storage/slot_pool.hpp"
#include "tierpool/storage/weight_window.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kFileBytes = 256 * kMiB;
constexpr std::uint64_t kUnitBytes = kMiB;
constexpr std::uint64_t kUnits = kFileBytes / kUnitBytes;
constexpr std::uint64_t kPageBytes = 4 * kKiB;

/// A file of random bytes in $TMPDIR, or /tmp, removed at the end.
class RandomFile {
 public:
  RandomFile() {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/tierpool-benchmark-XXXXXX";
    descriptor_ = mkstemp(path_.data());
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> block(kMiB / sizeof(std::uint64_t));
    for (std::uint64_t i = 0; i < kUnits; ++i) {
      std::generate(block.begin(), block.end(), random);
      written_ = written_ && write(descriptor_, block.data(), kMiB) == static_cast<ssize_t>(kMiB);
    }
    written_ = written_ && fsync(descriptor_) == 0;
  }
  ~RandomFile() {
    close(descriptor_);
    unlink(path_.c_str());
  }
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;

  [[nodiscard]] bool is_written() const noexcept { return written_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  void forget() const noexcept { posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED); }

 private:
  std::string path_;
  int descriptor_ = -1;
  bool written_ = true;
};

const RandomFile& random_file() {
  static const RandomFile file;
  return file;
}

/// Every unit once, in random order, and again; the page cache is emptied in between.
class Order {
 public:
  explicit Order(std::function<void()> forget = [] { random_file().forget(); })
      : forget_(std::move(forget)), units_(kUnits) {
    std::iota(units_.begin(), units_.end(), 0);
    std::shuffle(units_.begin(), units_.end(), random_);
  }
  std::uint64_t next_offset(benchmark::State& state) {
    if (next_ == kUnits) {
      state.PauseTiming();
      forget_();
      next_ = 0;
      state.ResumeTiming();
    }
    return units_[next_++] * kUnitBytes;
  }

 private:
  std::function<void()> forget_;
  std::mt19937_64 random_{2};
  std::vector<std::uint64_t> units_;
  std::uint64_t next_ = 0;
};

/// Touches every page, as a computation would; the result depends on all of them.
std::uint64_t touch(const void* memory) {
  const auto* bytes = static_cast<const unsigned char*>(memory);
  std::uint64_t sum = 0;
  for (std::uint64_t offset = 0; offset < kUnitBytes; offset += kPageBytes) {
    sum += bytes[offset];
  }
  return sum;
}

bool prepare(benchmark::State& state) {
  if (!random_file().is_written()) {
    state.SkipWithError("cannot write a file of 256 MiB: set TMPDIR to a folder with room");
    return false;
  }
  random_file().forget();
  return true;
}

void count_units(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(kUnitBytes));
}

void read_direct(benchmark::State& state) {
  if (!prepare(state)) {
    return;
  }
  const SteadyClock clock;
  const auto in_flight = static_cast<std::size_t>(state.range(0));
  const auto source = std::make_shared<FileSource>(random_file().path());
  HostDevice device;
  MemoryBudget budget("host", kGiB);
  SlotPool slots(device, budget, kUnitBytes, static_cast<std::uint32_t>(in_flight) + 1, kPageBytes);
  DirectReader reader({source}, {.threads = static_cast<std::uint32_t>(in_flight)}, clock);
  Order order;
  std::deque<ReadHandle> reads;
  std::uint32_t next_slot = 0;
  std::uint32_t oldest_slot = 0;
  for (auto _ : state) {
    const std::uint64_t offset = order.next_offset(state);
    reads.push_back(reader.submit({{0, offset, kUnitBytes, slots.address(next_slot)}}, ReadPriority::demand));
    next_slot = (next_slot + 1) % slots.slot_count();
    if (reads.size() == in_flight) {
      if (reader.wait(reads.front()) != ReadOutcome::complete) {
        state.SkipWithError(reader.error(reads.front()).c_str());
        break;
      }
      benchmark::DoNotOptimize(touch(pointer_at(slots.address(oldest_slot))));
      oldest_slot = (oldest_slot + 1) % slots.slot_count();
      reads.pop_front();
    }
  }
  while (!reads.empty()) {
    static_cast<void>(reader.wait(reads.front()));
    reads.pop_front();
  }
  state.SetLabel(source->is_direct() ? "O_DIRECT" : "no O_DIRECT here");
  count_units(state);
}
BENCHMARK(read_direct)->Name("read/direct")->ArgName("in-flight")->Arg(1)->Arg(4)->UseRealTime();

void read_buffered(benchmark::State& state) {
  if (!prepare(state)) {
    return;
  }
  std::vector<unsigned char> buffer(kUnitBytes);
  Order order;
  for (auto _ : state) {
    const auto offset = static_cast<off_t>(order.next_offset(state));
    if (pread(random_file().descriptor(), buffer.data(), kUnitBytes, offset) != static_cast<ssize_t>(kUnitBytes)) {
      state.SkipWithError("a read came up short");
      break;
    }
    benchmark::DoNotOptimize(touch(buffer.data()));
  }
  count_units(state);
}
BENCHMARK(read_buffered)->Name("read/buffered")->UseRealTime();

void read_mapped(benchmark::State& state) {
  if (!prepare(state)) {
    return;
  }
  void* mapping = mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, random_file().descriptor(), 0);
  if (mapping == MAP_FAILED) {
    state.SkipWithError("cannot map the file");
    return;
  }
  Order order([mapping] {
    madvise(mapping, kFileBytes, MADV_DONTNEED);  // the page cache cannot forget what is mapped
    random_file().forget();
  });
  for (auto _ : state) {
    const std::uint64_t offset = order.next_offset(state);
    benchmark::DoNotOptimize(touch(static_cast<const unsigned char*>(mapping) + offset));
  }
  munmap(mapping, kFileBytes);
  count_units(state);
}
BENCHMARK(read_mapped)->Name("read/mmap")->UseRealTime();

// Without the disk: the bytes come from memory. Hide the old unit, fill its slot, show it where the new one belongs,
// and touch every page there.
void refill_recycled(benchmark::State& state) {
  if (!prepare(state)) {
    return;
  }
  std::vector<std::vector<Extent>> extents;
  for (std::uint64_t unit = 0; unit < kUnits; ++unit) {
    extents.push_back({{0, unit * kUnitBytes, kUnitBytes}});
  }
  const UnitTable units(extents, kPageBytes);
  HostDevice device(HostBacking::shared_memory);
  MemoryBudget budget("host", kGiB);
  const SlotPool slots(device, budget, kUnitBytes, 1, kPageBytes);
  void* mapping = mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, random_file().descriptor(), 0);
  {
    const WindowFile file{address_of(mapping), 0, kFileBytes, random_file().descriptor()};
    WeightWindow window(units, slots, {file}, {}, Uncovered::reads_file);
    const std::vector<unsigned char> bytes(kUnitBytes, 7);
    UnitId unit = 0;
    window.bind(unit, 0);
    for (auto _ : state) {
      window.unbind(unit);
      std::memcpy(pointer_at(slots.address(0)), bytes.data(), kUnitBytes);
      unit = (unit + 1) % kUnits;
      window.bind(unit, 0);
      benchmark::DoNotOptimize(touch(pointer_at(window.address(extents[unit].front()))));
    }
  }
  munmap(mapping, kFileBytes);
  count_units(state);
}
BENCHMARK(refill_recycled)->Name("refill/recycled-slot");

// The same with memory that stands at a fixed address, given back and asked for again.
void refill_fresh(benchmark::State& state) {
  void* mapping = mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  madvise(mapping, kFileBytes, MADV_NOHUGEPAGE);
  const std::vector<unsigned char> bytes(kUnitBytes, 7);
  auto* memory = static_cast<unsigned char*>(mapping);
  std::uint64_t unit = 0;
  for (auto _ : state) {
    madvise(memory + unit * kUnitBytes, kUnitBytes, MADV_DONTNEED);
    unit = (unit + 1) % kUnits;
    std::memcpy(memory + unit * kUnitBytes, bytes.data(), kUnitBytes);
    benchmark::DoNotOptimize(touch(memory + unit * kUnitBytes));
  }
  munmap(mapping, kFileBytes);
  count_units(state);
}
BENCHMARK(refill_fresh)->Name("refill/MADV_DONTNEED");

}  // namespace
}  // namespace tierpool

BENCHMARK_MAIN();
