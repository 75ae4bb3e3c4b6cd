#pragma once

#include <cstdint>
#include <span>

#include "tierpool/pool/block_node.hpp"

namespace tierpool {

/// A freed block that waits in a magazine for its next use. Its old handle is stale, this generation is the new one.
struct ParkedBlock {
  std::uint64_t address = 0;
  std::uint32_t heap_index = 0;
  std::uint32_t node = kNoNode;
  std::uint32_t generation = 0;
};

/// A stack of parked blocks of one size. Not thread-safe: guarded by its thread cache's lock.
class Magazine {
 public:
  Magazine() = default;
  ~Magazine() { delete[] begin_; }
  Magazine(const Magazine&) = delete;
  Magazine& operator=(const Magazine&) = delete;

  /// Gives a magazine without places its size.
  void assign(std::uint64_t block_bytes) noexcept { block_bytes_ = block_bytes; }
  [[nodiscard]] std::uint64_t block_bytes() const noexcept { return block_bytes_; }

  [[nodiscard]] bool empty() const noexcept { return top_ == begin_; }
  [[nodiscard]] bool has_room() const noexcept { return top_ != end_; }
  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(top_ - begin_); }
  [[nodiscard]] std::uint32_t place_count() const noexcept { return static_cast<std::uint32_t>(end_ - begin_); }
  /// What the magazine holds when every place is taken.
  [[nodiscard]] std::uint64_t reserved_bytes() const noexcept { return place_count() * block_bytes_; }
  /// Longest parked first.
  [[nodiscard]] std::span<const ParkedBlock> blocks() const noexcept { return {begin_, top_}; }

  void push(const ParkedBlock& block) noexcept { *top_++ = block; }
  [[nodiscard]] const ParkedBlock& pop() noexcept { return *--top_; }

  /// Has at least `place_count` places from now on. False when there is no memory for them.
  [[nodiscard]] bool grow(std::uint32_t place_count) noexcept;
  /// Forgets the `count` blocks that were parked longest, and has no more places than blocks.
  void shrink(std::uint32_t count) noexcept;

  /// How many blocks the next refill should bring: twice as many each time, so that a size that is asked for once costs
  /// one block.
  [[nodiscard]] std::uint32_t next_refill_count() noexcept;

 private:
  ParkedBlock* top_ = nullptr;
  ParkedBlock* end_ = nullptr;
  ParkedBlock* begin_ = nullptr;
  std::uint64_t block_bytes_ = 0;
  std::uint32_t capacity_ = 0;  // of the array behind the places
  std::uint32_t refill_count_ = 1;
};

}  // namespace tierpool
