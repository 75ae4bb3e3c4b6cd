#include "tierpool/pool/commit_map.hpp"

#include <algorithm>

#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

constexpr std::uint64_t kBitsPerWord = 64;

}  // namespace

CommitMap::CommitMap(Device& device, const Reservation& reservation, std::uint64_t capacity_bytes, ByteLimit* limit,
                     DeviceMemory* memory)
    : device_(device),
      base_address_(reservation.address),
      capacity_bytes_(capacity_bytes),
      granularity_bytes_(device.granularity_bytes()),
      granule_count_(align_up(capacity_bytes, granularity_bytes_) / granularity_bytes_),
      limit_(limit),
      memory_(memory),
      words_(std::make_unique<std::atomic<std::uint64_t>[]>(granule_count_ / kBitsPerWord + 1)) {}

bool CommitMap::is_committed(std::uint64_t granule) const noexcept {
  const std::uint64_t word = words_[granule / kBitsPerWord].load(std::memory_order_acquire);
  return ((word >> (granule % kBitsPerWord)) & 1U) != 0;
}

void CommitMap::set(std::uint64_t first_granule, std::uint64_t count, bool committed) noexcept {
  for (std::uint64_t granule = first_granule; granule < first_granule + count; ++granule) {
    const std::uint64_t bit = std::uint64_t{1} << (granule % kBitsPerWord);
    std::atomic<std::uint64_t>& word = words_[granule / kBitsPerWord];
    if (committed) {
      word.fetch_or(bit, std::memory_order_release);
    } else {
      word.fetch_and(~bit, std::memory_order_release);
    }
  }
  if (committed) {
    committed_count_.fetch_add(count, std::memory_order_release);
  } else {
    committed_count_.fetch_sub(count, std::memory_order_release);
  }
}

std::uint64_t CommitMap::run_end(std::uint64_t granule, std::uint64_t end, bool committed) const noexcept {
  while (granule < end && is_committed(granule) == committed) {
    ++granule;
  }
  return granule;
}

bool CommitMap::covers(std::uint64_t offset_bytes, std::uint64_t bytes) const noexcept {
  if (committed_count_.load(std::memory_order_acquire) == granule_count_) {
    return true;
  }
  const std::uint64_t end = align_up(offset_bytes + bytes, granularity_bytes_) / granularity_bytes_;
  return run_end(offset_bytes / granularity_bytes_, end, true) == end;
}

std::uint64_t CommitMap::commit(std::uint64_t offset_bytes, std::uint64_t bytes, bool& complete) noexcept {
  const std::uint64_t before = committed_bytes();
  if (device_.commit_scope() != CommitScope::granules) {
    offset_bytes = 0;
    bytes = capacity_bytes_;
  }
  const std::uint64_t end = align_up(offset_bytes + bytes, granularity_bytes_) / granularity_bytes_;
  complete = true;
  for (std::uint64_t granule = offset_bytes / granularity_bytes_; granule < end && complete;) {
    if (is_committed(granule)) {
      ++granule;
      continue;
    }
    const std::uint64_t count = run_end(granule, end, false) - granule;
    complete = commit_granules(granule, count);
    granule += count;
  }
  return committed_bytes() - before;
}

bool CommitMap::commit_granules(std::uint64_t first_granule, std::uint64_t count) noexcept {
  const std::uint64_t address = base_address_ + first_granule * granularity_bytes_;
  const std::uint64_t bytes = count * granularity_bytes_;
  if (limit_ != nullptr && !limit_->take(bytes)) {
    return false;
  }
  if (device_.commit(address, bytes)) {
    if (memory_ != nullptr) {
      memory_->took(bytes);  // before it shows as committed
    }
    set(first_granule, count, true);
    return true;
  }
  static_cast<void>(device_.decommit(address, bytes));  // some granules may have made it
  if (limit_ != nullptr) {
    limit_->give_back(bytes);
  }
  return false;
}

void CommitMap::note_decommitted(std::uint64_t bytes) noexcept {
  if (limit_ != nullptr) {
    limit_->give_back(bytes);
  }
  if (memory_ != nullptr && bytes != 0) {
    memory_->gave_back(bytes);
  }
}

void CommitMap::forget() noexcept {
  note_decommitted(committed_count_.load(std::memory_order_acquire) * granularity_bytes_);
}

std::uint64_t CommitMap::decommit_inside(std::uint64_t offset_bytes, std::uint64_t bytes, bool& refused) noexcept {
  const std::uint64_t before = committed_bytes();
  const std::uint64_t end_bytes = offset_bytes + bytes;
  const std::uint64_t end = end_bytes == capacity_bytes_ ? granule_count_ : end_bytes / granularity_bytes_;
  for (std::uint64_t granule = align_up(offset_bytes, granularity_bytes_) / granularity_bytes_; granule < end;) {
    if (!is_committed(granule)) {
      ++granule;
      continue;
    }
    const std::uint64_t count = run_end(granule, end, true) - granule;
    decommit_granules(granule, count, refused);
    granule += count;
  }
  return before - committed_bytes();
}

void CommitMap::decommit_granules(std::uint64_t first_granule, std::uint64_t count, bool& refused) noexcept {
  const AddressRange range =
      device_.decommittable(base_address_ + first_granule * granularity_bytes_, count * granularity_bytes_);
  if (range.bytes == 0) {
    return;
  }
  if (device_.decommit(range.address, range.bytes)) {
    set((range.address - base_address_) / granularity_bytes_, range.bytes / granularity_bytes_, false);
    note_decommitted(range.bytes);
  } else {
    refused = true;
  }
}

std::uint64_t CommitMap::committed_bytes() const noexcept {
  const std::uint64_t bytes = committed_count_.load(std::memory_order_acquire) * granularity_bytes_;
  // The last granule may reach past the capacity; what lies there is nobody's.
  const std::uint64_t excess = granule_count_ * granularity_bytes_ - capacity_bytes_;
  const std::uint64_t used = excess != 0 && is_committed(granule_count_ - 1) ? std::max(bytes, excess) - excess : bytes;
  return std::min(used, capacity_bytes_);  // the two reads may straddle a decommit
}

}  // namespace tierpool
