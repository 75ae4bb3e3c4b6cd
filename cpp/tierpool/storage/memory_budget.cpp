#include "tierpool/storage/memory_budget.hpp"

#include <algorithm>

#include "tierpool/base/errors.hpp"
#include "tierpool/base/memory_size.hpp"

namespace tierpool {
namespace {

// By MemoryPurpose: what makes it need less.
constexpr std::array<std::string_view, kMemoryPurposes> kRemedies = {"unload what else the process holds",
                                                                     "keep fewer weights resident",
                                                                     "stream fewer units",
                                                                     "use fewer slots",
                                                                     "shorten the context",
                                                                     "lower the batch size",
                                                                     "lower the margin"};

std::string describe_uses(const std::array<std::uint64_t, kMemoryPurposes>& used_bytes) {
  std::string text;
  for (std::size_t i = 0; i < kMemoryPurposes; ++i) {
    if (used_bytes[i] > 0) {
      text +=
          (text.empty() ? " (" : ", ") + std::string(kMemoryPurposeNames[i]) + " " + format_memory_size(used_bytes[i]);
    }
  }
  return text.empty() ? text : text + ")";
}

}  // namespace

MemoryBudget::Share::~Share() {
  if (budget_ != nullptr) {
    budget_->give_back(purpose_, bytes_);
  }
}

MemoryBudget::Share MemoryBudget::take(MemoryPurpose purpose, std::uint64_t bytes) {
  const auto index = static_cast<std::size_t>(purpose);
  std::unique_lock<std::mutex> lock(mutex_);
  if (bytes <= limit_bytes_ - total_bytes_) {
    total_bytes_ += bytes;
    used_bytes_[index] += bytes;
    peak_bytes_ = std::max(peak_bytes_, total_bytes_);
    return Share(*this, purpose, bytes);
  }
  const auto used_bytes = used_bytes_;
  const std::uint64_t total_bytes = total_bytes_;
  lock.unlock();
  throw BudgetError(std::string(kMemoryPurposeNames[index]) + " needs " + std::to_string(bytes) + " bytes (" +
                    format_memory_size(bytes) + ") of '" + device_name_ + "', but " + format_memory_size(total_bytes) +
                    " of the limit of " + format_memory_size(limit_bytes_) + " are taken" + describe_uses(used_bytes) +
                    ": raise the memory limit by " + std::to_string(bytes - (limit_bytes_ - total_bytes)) +
                    " bytes, or " + std::string(kRemedies[index]));
}

void MemoryBudget::give_back(MemoryPurpose purpose, std::uint64_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  used_bytes_[static_cast<std::size_t>(purpose)] -= bytes;
  total_bytes_ -= bytes;
}

std::uint64_t MemoryBudget::used_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return total_bytes_;
}

std::uint64_t MemoryBudget::used_bytes(MemoryPurpose purpose) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_bytes_[static_cast<std::size_t>(purpose)];
}

std::uint64_t MemoryBudget::peak_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return peak_bytes_;
}

}  // namespace tierpool
