#include "tierpool/pool/thread_cache.hpp"

#include <algorithm>
#include <utility>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

// A block larger than this share of what a thread may park is not parked at all.
constexpr std::uint64_t kLargestShare = 2;
constexpr std::uint64_t kFirstPlaces = 8;
// Blocks that are parked do not join their neighbours: of large ones, many would cost utilisation.
constexpr std::uint64_t kMostExactBytes = 64 * kMiB;
// A magazine grows by at most this share of the room that is left, so that early ones leave some to late ones.
constexpr std::uint64_t kGrowthShare = 16;

}  // namespace

ThreadCache::ThreadCache(const MagazineLayout& layout, std::size_t heap_count, std::uint32_t lane,
                         const GiveBack& give_back)
    : layout_(layout),
      lane_(lane),
      magazines_(std::make_unique<Magazine[]>(layout.count())),
      counters_(heap_count),
      pending_(heap_count),
      give_back_(give_back) {
  std::uint64_t units = 0;
  for (std::uint32_t index = 0; index < layout.class_count(); ++index) {
    units = size_class_of(units + 1).units;
    magazines_[index].assign(units * kUnitBytes);
  }
}

std::uint64_t ThreadCache::room_bytes() const noexcept {
  const std::uint64_t max_bytes = max_bytes_.load(std::memory_order_relaxed);
  return max_bytes - std::min(max_bytes, reserved_bytes_.load(std::memory_order_relaxed));
}

void ThreadCache::evict_oldest(Magazine& magazine, std::uint32_t count) noexcept {
  const std::uint64_t before = magazine.reserved_bytes();
  if (count != 0) {
    give_back_(magazine.blocks().first(count));
  }
  magazine.shrink(count);
  reserved_bytes_.fetch_sub(before - magazine.reserved_bytes(), std::memory_order_relaxed);
}

bool ThreadCache::grow(Magazine& magazine, std::uint64_t place_count) noexcept {
  const std::uint64_t before = magazine.reserved_bytes();
  const std::uint64_t fair = std::max<std::uint64_t>(room_bytes() / kGrowthShare / magazine.block_bytes(), 1);
  const std::uint64_t most = magazine.place_count() + std::min(fair, room_bytes() / magazine.block_bytes());
  if (!magazine.grow(static_cast<std::uint32_t>(std::min(place_count, most)))) {
    return false;
  }
  reserved_bytes_.fetch_add(magazine.reserved_bytes() - before, std::memory_order_relaxed);
  return true;
}

bool ThreadCache::make_room(std::uint32_t index, std::uint64_t bytes) noexcept {
  const std::uint64_t max_bytes = max_bytes_.load(std::memory_order_relaxed);
  if (index >= layout_.count() || magazines_[index].block_bytes() != bytes || bytes > max_bytes / kLargestShare) {
    return false;
  }
  if (room_bytes() < bytes) {
    for (Magazine& magazine : magazines()) {
      evict_oldest(magazine, 0);  // only places without a block
    }
  }
  if (room_bytes() < bytes) {
    for (Magazine& magazine : magazines()) {
      evict_oldest(magazine, (magazine.count() + 1) / 2);
    }
  }
  Magazine& magazine = magazines_[index];
  std::uint64_t places = std::max<std::uint64_t>(2 * magazine.place_count(), kFirstPlaces);
  if (index >= layout_.class_count()) {
    places = std::min(places, std::max<std::uint64_t>(kMostExactBytes / bytes, 1));
  }
  return grow(magazine, places) && magazine.has_room();
}

void ThreadCache::note_miss(std::uint64_t bytes) noexcept {
  if (!layout_.is_exact(bytes)) {
    return;
  }
  const std::uint64_t block_bytes = block_bytes_for(bytes);
  const std::size_t index = layout_.index_for(bytes);
  Magazine& magazine = magazines_[index];
  if (std::exchange(missed_bytes_[index - layout_.class_count()], block_bytes) == block_bytes &&
      magazine.block_bytes() != block_bytes) {
    evict_oldest(magazine, magazine.count());
    magazine.assign(block_bytes);
  }
}

std::uint32_t ThreadCache::extra_blocks(std::uint32_t index, std::uint64_t bytes) noexcept {
  if (index >= layout_.class_count() || magazines_[index].block_bytes() != bytes) {
    return 0;
  }
  Magazine& magazine = magazines_[index];
  const bool is_too_large = magazine.block_bytes() > max_bytes_.load(std::memory_order_relaxed) / kLargestShare;
  const std::uint32_t wanted = is_too_large ? 0 : magazine.next_refill_count() - 1;
  if (wanted == 0 || !grow(magazine, magazine.count() + wanted)) {
    return 0;
  }
  return std::min(wanted, magazine.place_count() - magazine.count());
}

void ThreadCache::settle_pending(bool counts) noexcept {
  for (std::size_t heap = 0; heap < pending_.size(); ++heap) {
    if (counts) {
      counters_[heap].add(pending_[heap]);
    }
    pending_[heap] = EventCounters{};
  }
}

void ThreadCache::forget_largest_requests() noexcept {
  for (EventCounters& counters : counters_) {
    counters.largest_request_bytes = 0;
  }
}

std::size_t ThreadCache::flush() noexcept {
  std::size_t count = 0;
  for (Magazine& magazine : magazines()) {
    count += magazine.count();
    evict_oldest(magazine, magazine.count());
  }
  return count;
}

void ThreadCache::add_parked(std::vector<ParkedTotals>& by_heap) const noexcept {
  for (const Magazine& magazine : magazines()) {
    for (const ParkedBlock& block : magazine.blocks()) {
      ++by_heap[block.heap_index].count;
      by_heap[block.heap_index].bytes += magazine.block_bytes();
    }
  }
}

}  // namespace tierpool
