#include "tierpool/pool/origins.hpp"

#include <algorithm>
#include <utility>

namespace tierpool {

void Origins::set(const Allocation& allocation, std::string text) {
  if (enabled_) {
    const std::lock_guard<std::mutex> lock(mutex_);
    by_address_.insert_or_assign(allocation.address, Origin{allocation.node, allocation.generation, std::move(text)});
  }
}

void Origins::erase(const Allocation& allocation) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_address_.find(allocation.address);
  if (found != by_address_.end() && found->second.node == allocation.node &&
      found->second.generation == allocation.generation) {
    by_address_.erase(found);
  }
}

std::vector<std::string> Origins::texts() const {
  std::vector<std::string> texts;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [address, origin] : by_address_) {
      texts.push_back(origin.text);
    }
  }
  std::sort(texts.begin(), texts.end());
  return texts;
}

}  // namespace tierpool
