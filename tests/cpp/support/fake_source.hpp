#pragma once

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/fake_clock.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/storage/read_source.hpp"

namespace tierpool::testing {

/// A file in memory that fails, comes up short, dawdles and waits on demand. Reads are numbered from 0. Thread-safe.
class FakeSource final : public ReadSource {
 public:
  enum class Failure { io_error, short_read, changed };
  struct Call {
    std::uint64_t offset_bytes = 0;
    std::uint64_t bytes = 0;

    bool operator==(const Call&) const = default;
  };

  explicit FakeSource(std::vector<unsigned char> bytes, FakeClock* clock = nullptr)
      : bytes_(std::move(bytes)), clock_(clock) {}

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept override { return bytes_.size(); }
  [[nodiscard]] ReadResult read(std::uint64_t offset_bytes, std::uint64_t bytes,
                                std::uint64_t destination) noexcept override {
    std::unique_lock lock(mutex_);
    const std::uint64_t number = calls_.size();
    calls_.push_back({offset_bytes, bytes});
    changed_.notify_all();
    changed_.wait(lock, [&] { return number < allowed_ && !held_.contains(number); });
    if (clock_ != nullptr) {
      clock_->advance(delay_ns_);
    }
    ReadResult result{.bytes = std::min(bytes, bytes_.size() - offset_bytes)};
    if (const auto failure = failures_.find(number); failure != failures_.end()) {
      result = fail(failure->second, result);
    }
    lock.unlock();
    std::memcpy(pointer_at(destination), bytes_.data() + offset_bytes, result.bytes);
    return result;
  }

  void fail_at(std::uint64_t number, Failure failure) {
    const std::lock_guard lock(mutex_);
    failures_[number] = failure;
  }
  void recover() {
    const std::lock_guard lock(mutex_);
    failures_.clear();
  }
  /// Every read takes this long.
  void set_delay(std::uint64_t ns) {
    const std::lock_guard lock(mutex_);
    delay_ns_ = ns;
  }
  /// Reads from this number on wait until they are allowed.
  void hold_from(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    allowed_ = number;
    changed_.notify_all();
  }
  /// These reads wait until they are released, others do not.
  void hold(const std::set<std::uint64_t>& numbers) {
    const std::lock_guard lock(mutex_);
    held_ = numbers;
  }
  void release(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    held_.erase(number);
    changed_.notify_all();
  }
  void let_go() { hold_from(std::numeric_limits<std::uint64_t>::max()); }
  /// Blocks until that many reads have begun.
  void wait_for_calls(std::uint64_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return calls_.size() >= count; });
  }

  [[nodiscard]] std::vector<Call> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  [[nodiscard]] const std::vector<unsigned char>& bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] static ReadResult fail(Failure failure, const ReadResult& success) {
    switch (failure) {
      case Failure::io_error:
        return {.bytes = 0, .fault = ReadFault::failed, .error_number = EIO};
      case Failure::short_read:
        return {.bytes = success.bytes / 2};
      case Failure::changed:
        return {.bytes = success.bytes, .fault = ReadFault::changed};
    }
    return success;
  }

  const std::string name_ = "fake.gguf";
  const std::vector<unsigned char> bytes_;
  FakeClock* const clock_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Call> calls_;
  std::map<std::uint64_t, Failure> failures_;
  std::set<std::uint64_t> held_;
  std::uint64_t allowed_ = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t delay_ns_ = 0;
};

}  // namespace tierpool::testing
