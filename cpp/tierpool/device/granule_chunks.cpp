#include "tierpool/device/granule_chunks.hpp"

namespace tierpool {

GranuleChunks::Run GranuleChunks::find_missing(std::uint64_t begin, std::uint64_t end) const noexcept {
  while (begin < end && states_[begin].backed) {
    ++begin;
  }
  Run run{.first = begin, .count = 0};
  while (run.end() < end && !states_[run.end()].backed) {
    ++run.count;
  }
  return run;
}

GranuleChunks::Run GranuleChunks::find_unused(std::uint64_t begin, std::uint64_t end) const noexcept {
  for (Run chunk = find_chunk(begin, end); chunk; chunk = find_chunk(chunk.end(), end)) {
    bool used = false;
    for (std::uint64_t granule = chunk.first; granule < chunk.end() && !used; ++granule) {
      used = states_[granule].used;
    }
    if (!used) {
      return chunk;
    }
  }
  return {};
}

GranuleChunks::Run GranuleChunks::find_chunk(std::uint64_t begin, std::uint64_t end) const noexcept {
  while (begin < end && !states_[begin].backed) {
    ++begin;
  }
  return begin < end ? chunk_of(begin) : Run{};
}

GranuleChunks::Run GranuleChunks::whole_within(std::uint64_t begin, std::uint64_t end) const noexcept {
  while (begin < end && !states_[begin].first) {
    ++begin;
  }
  while (begin < end && end < states_.size() && states_[end].backed && !states_[end].first) {
    --end;
  }
  return {.first = begin, .count = end - begin};
}

void GranuleChunks::add_chunk(const Run& chunk) noexcept {
  for (std::uint64_t granule = chunk.first; granule < chunk.end(); ++granule) {
    states_[granule] = {.backed = true, .first = granule == chunk.first, .used = false};
  }
}

void GranuleChunks::remove_chunk(const Run& chunk) noexcept {
  for (std::uint64_t granule = chunk.first; granule < chunk.end(); ++granule) {
    states_[granule] = {};
  }
}

void GranuleChunks::set_used(std::uint64_t begin, std::uint64_t end, bool used) noexcept {
  for (std::uint64_t granule = begin; granule < end; ++granule) {
    states_[granule].used = used && states_[granule].backed;
  }
}

GranuleChunks::Run GranuleChunks::chunk_of(std::uint64_t granule) const noexcept {
  Run chunk{.first = granule, .count = 1};
  while (!states_[chunk.first].first) {
    --chunk.first;
  }
  chunk.count = granule - chunk.first + 1;
  while (chunk.end() < states_.size() && states_[chunk.end()].backed && !states_[chunk.end()].first) {
    ++chunk.count;
  }
  return chunk;
}

}  // namespace tierpool
