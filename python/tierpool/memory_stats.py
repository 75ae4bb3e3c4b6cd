"""A pool's statistics under the names that PyTorch's users plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierpool import _core

_MIB = 2**20


def memory_stats(statistics: _core.PoolStatistics) -> dict[str, int]:
    """Return what a pool knows of `torch.cuda.memory_stats`, flat.

    A pool has no parts for large and small requests: of each figure there is ``all`` only. What it does not count is
    left out and not shown as zero: the most allocations at one moment, block bytes over time, requested bytes of what
    is live (an array's are not known when it comes back), and retries.
    """
    used = round(statistics.used_capacity_mb * _MIB)
    fallback = round(statistics.fallback_used_mb * _MIB)
    peak = round(statistics.peak_taken_mb * _MIB)
    pending = round((statistics.pending_mb + statistics.fallback_pending_mb) * _MIB)
    return {
        "allocation.all.current": statistics.active_allocations,
        "allocation.all.allocated": statistics.total_allocations,
        "allocation.all.freed": statistics.total_deallocations,
        "allocated_bytes.all.current": used + fallback,
        "allocated_bytes.all.peak": peak,
        "active_bytes.all.current": used + fallback + pending,
        "active_bytes.all.peak": peak,
        "reserved_bytes.all.current": round(statistics.reserved_mb * _MIB),
        "reserved_bytes.all.peak": round(statistics.peak_reserved_mb * _MIB),
        "requested_bytes.all.allocated": round(statistics.avg_allocation_mb * _MIB * statistics.total_allocations),
        "num_ooms": statistics.exhaustion_events - statistics.fallback_allocations,
        "num_device_alloc": statistics.device_allocations,
        "num_device_free": statistics.device_frees,
    }
