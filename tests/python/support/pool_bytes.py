"""What a pool's statistics say in bytes, and what they must add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierpool import MemoryPool

MIB = 1 << 20


def in_bytes(mb: float) -> int:
    """Exact: every statistic is a whole number of bytes below 2**53."""
    return int(mb * MIB)


def used(pool: MemoryPool) -> int:
    return in_bytes(pool.get_statistics().used_capacity_mb)


def cached(pool: MemoryPool) -> int:
    return in_bytes(pool.get_statistics().cached_mb)


def park(pool: MemoryPool, sizes: Iterable[int]) -> None:
    """Allocate all sizes, then drop all."""
    kept = [pool.allocate(size) for size in sizes]
    kept.clear()


def check_at_rest(pool: MemoryPool, live: int) -> None:
    stats, heaps = pool.get_statistics(), pool.heaps()
    total = in_bytes(stats.total_capacity_mb)
    assert in_bytes(stats.used_capacity_mb) + in_bytes(stats.cached_mb) + in_bytes(stats.free_mb) == total
    assert in_bytes(stats.used_capacity_mb) + in_bytes(stats.cached_mb) <= in_bytes(stats.peak_used_mb) <= total
    assert stats.active_allocations == stats.total_allocations - stats.total_deallocations == live
    assert stats.total_allocations == sum(heap.total_allocations for heap in heaps) + stats.fallback_allocations
    assert stats.used_capacity_mb == sum(heap.used_mb for heap in heaps)
    if live == 0:
        assert (stats.used_capacity_mb, stats.active_arrays, stats.active_heaps) == (0, 0, 0)
