#pragma once

#include <cstdint>
#include <vector>

namespace tierpool {

/// Granules of one reservation whose memory comes in chunks that the driver gives and takes back whole.
///
/// A granule that is given back while others of its chunk are in use stays with the chunk: it is handed out again at no
/// cost, and goes when the last of them does. Bookkeeping alone; the owner locks it.
class GranuleChunks {
 public:
  struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;

    explicit operator bool() const noexcept { return count > 0; }
    [[nodiscard]] std::uint64_t end() const noexcept { return first + count; }
  };

  explicit GranuleChunks(std::uint64_t granules) : states_(granules) {}

  /// The first run of granules without memory in [begin, end); empty when there is none.
  [[nodiscard]] Run find_missing(std::uint64_t begin, std::uint64_t end) const noexcept;
  /// The first chunk that overlaps [begin, end), of those without a granule in use; empty when there is none.
  [[nodiscard]] Run find_unused(std::uint64_t begin, std::uint64_t end) const noexcept;
  /// The first chunk that overlaps [begin, end); empty when there is none.
  [[nodiscard]] Run find_chunk(std::uint64_t begin, std::uint64_t end) const noexcept;

  /// The chunks of [begin, end), all of which has memory, without those that reach beyond it.
  [[nodiscard]] Run whole_within(std::uint64_t begin, std::uint64_t end) const noexcept;

  void add_chunk(const Run& chunk) noexcept;
  void remove_chunk(const Run& chunk) noexcept;
  void set_used(std::uint64_t begin, std::uint64_t end, bool used) noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept { return states_.size(); }

 private:
  struct State {
    bool backed = false;
    bool first = false;  ///< of its chunk
    bool used = false;
  };

  [[nodiscard]] Run chunk_of(std::uint64_t granule) const noexcept;

  std::vector<State> states_;
};

}  // namespace tierpool
