#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "tierpool/base/bytes.hpp"
#include "tierpool/base/fork_handler.hpp"
#include "tierpool/device/device.hpp"
#include "tierpool/device/failure_orders.hpp"
#include "tierpool/device/simulated_streams.hpp"

namespace tierpool {

/// The device calls that can be made to fail.
enum class DeviceCall { reserve, commit, decommit, allocate_direct, copy };

/// Addresses with no memory behind them, of any set size, with failures on demand: for tests, trace replay and sizing.
///
/// Every call is checked against what was reserved, committed and allocated; a call that no real device would survive
/// (an unknown range, a double free, a copy from uncommitted memory) is counted in misuse_count() and refused.
/// Committed and direct bytes together never exceed total_bytes(). Thread-safe.
class SimulatedDevice final : public Device {
 public:
  /// Throws ConfigError when `granularity_bytes` is not a power of two.
  explicit SimulatedDevice(std::uint64_t total_bytes = 1024 * kGiB, std::uint64_t granularity_bytes = 2 * kMiB);

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t total_bytes() const override { return total_bytes_; }
  [[nodiscard]] std::uint64_t free_bytes() const override;
  [[nodiscard]] std::uint64_t granularity_bytes() const noexcept override { return granularity_bytes_; }
  [[nodiscard]] std::uint64_t max_alignment_bytes() const noexcept override { return granularity_bytes_; }
  [[nodiscard]] bool host_accessible() const noexcept override { return false; }
  [[nodiscard]] bool commits_zeroed() const noexcept override { return true; }

  [[nodiscard]] Reservation reserve(std::uint64_t bytes) override;
  [[nodiscard]] bool commit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  [[nodiscard]] bool decommit(std::uint64_t address, std::uint64_t bytes) noexcept override;
  void release(const Reservation& reservation) noexcept override;

  [[nodiscard]] DirectAllocation allocate_direct(std::uint64_t bytes, std::uint64_t alignment) noexcept override;
  void free_direct(std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) noexcept override;

  void copy(std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) override;
  [[nodiscard]] DeviceStreams* streams() noexcept override { return &streams_; }

  /// Its streams, to be advanced. A copy whose memory is not committed when its turn comes counts as misuse here.
  [[nodiscard]] SimulatedStreams& simulated_streams() noexcept { return streams_; }
  /// Counts a use of memory, by a stream's work for instance, as misuse unless all of it is committed or allocated.
  void use(std::uint64_t address, std::uint64_t bytes) noexcept;

  /// The next `after` calls of this kind work, the `times` calls behind them fail and change nothing. Replaces an
  /// earlier order for this kind.
  void fail(DeviceCall call, std::uint64_t after = 0, std::uint64_t times = UINT64_MAX);
  /// Lets every call work again.
  void recover();

  [[nodiscard]] std::uint64_t reserved_bytes() const;
  [[nodiscard]] std::uint64_t committed_bytes() const;
  [[nodiscard]] std::uint64_t direct_bytes() const;
  /// Calls of this kind so far, failed ones included.
  [[nodiscard]] std::uint64_t call_count(DeviceCall call) const;
  [[nodiscard]] std::uint64_t misuse_count() const;

 private:
  struct ReservedRange {
    std::uint64_t bytes = 0;
    std::set<std::uint64_t> committed_granules;  // addresses
  };
  struct DirectRange {
    std::uint64_t bytes = 0;
    std::uint64_t alignment = 0;
  };

  // All of these expect mutex_ to be held.
  [[nodiscard]] std::uint64_t take_addresses(std::uint64_t bytes, std::uint64_t alignment) noexcept;
  [[nodiscard]] ReservedRange* find_reserved(std::uint64_t address, std::uint64_t bytes) noexcept;
  [[nodiscard]] ReservedRange* find_granules(std::uint64_t address, std::uint64_t bytes) noexcept;
  [[nodiscard]] std::uint64_t committed_bytes_in(const ReservedRange& range, std::uint64_t address,
                                                 std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool commit_granules(ReservedRange& range, std::uint64_t address, std::uint64_t bytes);
  [[nodiscard]] bool is_readable(std::uint64_t address, std::uint64_t bytes) noexcept;
  [[nodiscard]] std::uint64_t unused_bytes() const noexcept { return total_bytes_ - committed_bytes_ - direct_bytes_; }

  const std::string name_ = "simulated";
  const std::uint64_t total_bytes_;
  const std::uint64_t granularity_bytes_;
  mutable std::mutex mutex_;
  std::uint64_t next_address_;
  std::uint64_t committed_bytes_ = 0;
  std::uint64_t direct_bytes_ = 0;
  std::uint64_t misuse_count_ = 0;
  std::map<std::uint64_t, ReservedRange> reserved_;
  std::map<std::uint64_t, DirectRange> direct_;
  FailureOrders<DeviceCall, 5> calls_;
  SimulatedStreams streams_{[this](std::uint64_t destination, std::uint64_t source, std::uint64_t bytes) {
    use(destination, bytes);
    use(source, bytes);
  }};
  ForkHandler fork_handler_{ForkHandler::Rank::device, [this] { mutex_.lock(); }, [this] { mutex_.unlock(); }};
};

}  // namespace tierpool
