#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace tierpool {

/// What a process that runs a model needs memory for.
enum class MemoryPurpose { process, resident_weights, edge_pages, slots, kv_cache, compute_buffers, margin };

inline constexpr std::size_t kMemoryPurposes = 7;
/// By MemoryPurpose, as written in messages and statistics.
inline constexpr std::array<std::string_view, kMemoryPurposes> kMemoryPurposeNames = {
    "process", "resident_weights", "edge_pages", "slots", "kv_cache", "compute_buffers", "margin"};

/// The bytes of one device that a model may use, by purpose, never exceeded. Thread-safe.
class MemoryBudget {
 public:
  /// Bytes taken from a budget, given back when this dies. The budget outlives it.
  class Share {
   public:
    Share() = default;
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    Share(Share&& other) noexcept { swap(other); }
    Share& operator=(Share&& other) noexcept {
      Share(std::move(other)).swap(*this);
      return *this;
    }
    ~Share();

    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

   private:
    friend class MemoryBudget;
    Share(MemoryBudget& budget, MemoryPurpose purpose, std::uint64_t bytes) noexcept
        : budget_(&budget), purpose_(purpose), bytes_(bytes) {}
    void swap(Share& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(purpose_, other.purpose_);
      std::swap(bytes_, other.bytes_);
    }

    MemoryBudget* budget_ = nullptr;
    MemoryPurpose purpose_ = MemoryPurpose::process;
    std::uint64_t bytes_ = 0;
  };

  MemoryBudget(std::string device_name, std::uint64_t limit_bytes)
      : device_name_(std::move(device_name)), limit_bytes_(limit_bytes) {}

  /// Throws BudgetError naming the purpose, the bytes, the limit and what to change; nothing is taken then.
  [[nodiscard]] Share take(MemoryPurpose purpose, std::uint64_t bytes);

  [[nodiscard]] std::uint64_t limit_bytes() const noexcept { return limit_bytes_; }
  [[nodiscard]] std::uint64_t used_bytes() const;
  [[nodiscard]] std::uint64_t used_bytes(MemoryPurpose purpose) const;
  /// The most that was in use at once.
  [[nodiscard]] std::uint64_t peak_bytes() const;

 private:
  void give_back(MemoryPurpose purpose, std::uint64_t bytes) noexcept;

  const std::string device_name_;
  const std::uint64_t limit_bytes_;
  mutable std::mutex mutex_;  // guards all below
  std::array<std::uint64_t, kMemoryPurposes> used_bytes_{};
  std::uint64_t total_bytes_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace tierpool
