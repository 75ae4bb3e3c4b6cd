// A libFuzzer target: any sequence of calls on a BlockAllocator of any placement, against a std::map model.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "support/checked_block_allocator.hpp"

namespace tierpool::testing {
namespace {

/// Takes numbers off the front of the input; zero when nothing is left.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : next_(data), end_(data + size) {}

  [[nodiscard]] bool is_empty() const { return next_ == end_; }
  [[nodiscard]] std::uint64_t byte() { return next_ == end_ ? 0 : *next_++; }
  [[nodiscard]] std::uint64_t number(int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      value = value << 8 | byte();
    }
    return value;
  }

 private:
  const std::uint8_t* next_;
  const std::uint8_t* end_;
};

/// The model walks all gaps at every step: longer inputs would find nothing more, only later.
constexpr int kMaxSteps = 300;

void run(Input input) {
  const auto placement = static_cast<Placement>(input.byte() % placement_names().size());
  // Mostly small heaps, so that they run full; now and then one whose sizes need more than 32 bits.
  const std::uint64_t shift = input.byte() % 4 == 3 ? 24 : 0;
  const std::uint64_t capacity = input.number(3) << shift;
  CheckedBlockAllocator blocks(capacity, placement);
  for (int step = 0; step < kMaxSteps && !input.is_empty(); ++step) {
    const std::uint64_t choice = input.byte();
    switch (choice % 8) {
      case 0:
      case 1:
        blocks.allocate(input.number(2) << shift, kUnitBytes);
        break;
      case 2:
        blocks.allocate(input.number(3) << shift, std::uint64_t{1} << (choice / 8));
        break;
      case 3:
        blocks.allocate(input.number(8), std::uint64_t{1} << (input.byte() % 64));
        break;
      case 4:
      case 5:
        blocks.free(input.byte());
        break;
      case 6:
        blocks.free_stale(input.byte());
        break;
      default:
        blocks.take_free_blocks(input.number(3) << shift);
        break;
    }
    blocks.check();
  }
  blocks.free_all();
  blocks.check();
  if (!blocks.complaint().empty()) {
    std::fprintf(stderr, "%s: %s\n", to_string(placement).data(), blocks.complaint().c_str());
    std::abort();
  }
}

}  // namespace
}  // namespace tierpool::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tierpool::testing::run({data, size});
  return 0;
}
