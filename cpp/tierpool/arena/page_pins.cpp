#include "tierpool/arena/page_pins.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <iterator>
#include <new>

#include "tierpool/base/address.hpp"
#include "tierpool/base/bytes.hpp"

namespace tierpool {
namespace {

bool lock_into_ram(std::uint64_t address, std::uint64_t bytes) { return mlock(pointer_at(address), bytes) == 0; }

void unlock_from_ram(std::uint64_t address, std::uint64_t bytes) {
  // Fails only for memory that is no longer mapped, and then there is nothing to unlock.
  static_cast<void>(munlock(pointer_at(address), bytes));
}

}  // namespace

PagePins::PagePins(Calls calls)
    : calls_(calls), page_bytes_(static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))), process_(getpid()) {}

PagePins& PagePins::of_process() {
  // Leaked on purpose: pools may end after static destruction.
  static auto* instance = new PagePins({lock_into_ram, unlock_from_ram});
  return *instance;
}

PagePins::Range PagePins::pages_of(std::uint64_t address, std::uint64_t bytes) const noexcept {
  return {align_down(address, page_bytes_), align_up(address + bytes, page_bytes_)};
}

void PagePins::forget_parent() noexcept {
  const pid_t process = getpid();
  if (process != process_) {
    process_ = process;
    ++token_;
    owners_.clear();
  }
}

void PagePins::split(std::uint64_t page) {
  const auto next = owners_.lower_bound(page);
  if (next != owners_.end() && next->first == page) {
    return;
  }
  owners_.emplace_hint(next, page, next == owners_.begin() ? 0 : std::prev(next)->second);
}

void PagePins::add(const Range& pages) {
  split(pages.first);
  split(pages.second);
  for (auto it = owners_.find(pages.first); it->first != pages.second; ++it) {
    ++it->second;
  }
}

void PagePins::remove(const Range& pages) noexcept {
  auto it = owners_.find(pages.first);
  while (it->first != pages.second) {
    const auto next = std::next(it);
    if (--it->second == 0) {
      calls_.unlock_pages(it->first, next->first - it->first);
    }
    it = next;
  }
  // A boundary between pages that nobody owns says nothing; those of living pins stay, so that removal never allocates.
  it = owners_.find(pages.first);
  while (it != owners_.end() && it->first <= pages.second) {
    const bool owned_before = it != owners_.begin() && std::prev(it)->second != 0;
    it = it->second == 0 && !owned_before ? owners_.erase(it) : std::next(it);
  }
}

PagePins::Token PagePins::pin(std::uint64_t address, std::uint64_t bytes) noexcept {
  const Range pages = pages_of(address, bytes);
  Token token = 0;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    forget_parent();
    add(pages);
    token = token_;
  } catch (const std::bad_alloc&) {
    return 0;
  }
  if (calls_.lock_pages(pages.first, pages.second - pages.first)) {
    return token;
  }
  unpin(address, bytes, token);
  return 0;
}

void PagePins::unpin(std::uint64_t address, std::uint64_t bytes, Token token) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  forget_parent();
  if (token == token_) {
    remove(pages_of(address, bytes));
  }
}

bool PagePins::holds(Token token) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  forget_parent();
  return token != 0 && token == token_;
}

}  // namespace tierpool
