"""Every field of the statistics, their identities, and the verdicts drawn from them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import tierpool
from tierpool import MemoryPool, OutOfMemoryError, PoolStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import Buffer

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB

FIELDS = {
    "total_allocations": int,
    "total_acquired": int,
    "total_deallocations": int,
    "total_released": int,
    "fallback_allocations": int,
    "fallback_events": int,
    "exhaustion_events": int,
    "active_allocations": int,
    "active_arrays": int,
    "hit_rate": float,
    "total_heaps": int,
    "active_heaps": int,
    "pool_size": int,
    "available_count": int,
    "utilization": float,
    "total_capacity_mb": float,
    "used_capacity_mb": float,
    "peak_used_mb": float,
    "peak_taken_mb": float,
    "free_mb": float,
    "largest_free_mb": float,
    "largest_allocation_mb": float,
    "avg_allocation_mb": float,
    "fallback_used_mb": float,
    "committed_mb": float,
    "cached_mb": float,
    "pending_mb": float,
    "fallback_pending_mb": float,
    "reserved_mb": float,
    "peak_reserved_mb": float,
    "device_allocations": int,
    "device_frees": int,
    "stream_lanes": int,
    "fragmentation": float,
}


def check_identities(stats: PoolStatistics) -> None:
    assert stats.total_acquired == stats.total_allocations
    assert stats.total_released == stats.total_deallocations
    assert stats.fallback_events == stats.fallback_allocations <= stats.exhaustion_events
    assert stats.fallback_allocations <= stats.total_allocations
    assert stats.active_arrays <= stats.active_allocations
    assert stats.active_heaps <= stats.total_heaps == stats.pool_size
    assert stats.available_count == stats.total_heaps - stats.active_heaps
    assert 0 <= stats.used_capacity_mb <= stats.peak_used_mb <= stats.total_capacity_mb
    assert stats.used_capacity_mb + stats.cached_mb + stats.free_mb == stats.total_capacity_mb
    taken = stats.used_capacity_mb + stats.cached_mb + stats.fallback_used_mb
    assert max(taken, stats.peak_used_mb) <= stats.peak_taken_mb
    assert 0 <= stats.largest_free_mb <= stats.free_mb
    assert 0 <= stats.avg_allocation_mb <= stats.largest_allocation_mb
    assert 0 <= stats.fragmentation <= 1
    assert stats.committed_mb <= stats.total_capacity_mb
    assert stats.committed_mb + stats.fallback_used_mb <= stats.reserved_mb <= stats.peak_reserved_mb
    hits = stats.total_allocations - stats.fallback_allocations
    assert stats.hit_rate == (hits / stats.total_allocations if stats.total_allocations else 0.0)
    capacity = stats.total_capacity_mb
    assert stats.utilization == pytest.approx(stats.used_capacity_mb / capacity if capacity else 0.0)


def check_heaps(pool: MemoryPool) -> None:
    stats, heaps = pool.get_statistics(), pool.heaps()
    assert [heap.index for heap in heaps] == list(range(stats.total_heaps))
    assert sum(heap.capacity_mb for heap in heaps) == stats.total_capacity_mb
    assert sum(heap.used_mb for heap in heaps) == stats.used_capacity_mb
    assert sum(heap.free_mb for heap in heaps) == stats.free_mb
    assert sum(heap.cached_mb for heap in heaps) == stats.cached_mb
    assert sum(heap.committed_mb for heap in heaps) == stats.committed_mb
    assert max(heap.largest_free_mb for heap in heaps) == stats.largest_free_mb
    assert sum(heap.total_allocations for heap in heaps) == stats.total_allocations - stats.fallback_allocations
    assert sum(heap.active_allocations > 0 for heap in heaps) == stats.active_heaps
    for heap in heaps:
        assert heap.used_mb + heap.cached_mb + heap.free_mb == heap.capacity_mb
        assert heap.used_mb <= heap.peak_used_mb <= heap.capacity_mb
        assert heap.utilization == heap.used_mb / heap.capacity_mb
        assert heap.fragmentation == pytest.approx(1 - heap.largest_free_mb / heap.free_mb if heap.free_mb else 0.0)


def test_fields_and_their_types(pool: MemoryPool) -> None:
    stats = pool.get_statistics()
    values = stats.to_dict()
    assert {name: type(value) for name, value in values.items()} == FIELDS
    assert all(getattr(stats, name) == value for name, value in values.items())
    assert repr(stats).startswith("PoolStatistics(total_allocations=0, ")
    assert all(f"{name}={value!r}" in repr(stats) for name, value in values.items())


def test_a_snapshot_is_read_only_and_does_not_change(pool: MemoryPool) -> None:
    stats = pool.get_statistics()
    keep = pool.allocate(10)
    assert stats.total_allocations == 0
    assert keep.nbytes == 10
    with pytest.raises(AttributeError):
        stats.total_allocations = 3  # type: ignore[misc]


def test_a_worked_example(pool: MemoryPool) -> None:
    keep = [pool.allocate(MIB), pool.allocate(2 * MIB + 1), pool.allocate(TOO_LARGE)]
    pool.allocate(MIB).release()
    assert pool.try_allocate(TOO_LARGE) is None
    stats = pool.get_statistics()
    unit = 256 / MIB
    assert stats.to_dict() == {
        "total_allocations": 4,
        "total_acquired": 4,
        "total_deallocations": 1,
        "total_released": 1,
        "fallback_allocations": 1,
        "fallback_events": 1,
        "exhaustion_events": 2,
        "active_allocations": 3,
        "active_arrays": 0,
        "hit_rate": 0.75,
        "total_heaps": 2,
        "active_heaps": 2,
        "pool_size": 2,
        "available_count": 0,
        "utilization": (3 + unit) / 32,
        "total_capacity_mb": 32.0,
        "used_capacity_mb": 3 + unit,
        "peak_used_mb": 4 + unit,
        "peak_taken_mb": 21 + unit,
        "free_mb": 28 - unit,
        "largest_free_mb": stats.largest_free_mb,
        "largest_allocation_mb": 17.0,
        "avg_allocation_mb": (1 + 2 + 1 / MIB + 17 + 1) / 4,
        "fallback_used_mb": 17.0,
        "committed_mb": stats.committed_mb,
        "cached_mb": 1.0,
        "pending_mb": 0.0,
        "fallback_pending_mb": 0.0,
        "reserved_mb": stats.committed_mb + 17,
        "peak_reserved_mb": stats.committed_mb + 17,
        "device_allocations": stats.device_allocations,
        "device_frees": 0,
        "stream_lanes": 1,
        "fragmentation": stats.fragmentation,
    }
    assert len(keep) == 3
    check_identities(stats)
    check_heaps(pool)


def test_deallocation_counts_when_the_memory_comes_back(pool: MemoryPool) -> None:
    buffer = pool.allocate(100)
    view = memoryview(buffer)
    del buffer
    assert pool.get_statistics().total_deallocations == 0
    del view
    assert pool.get_statistics().total_deallocations == 1


def test_fragmentation_is_the_share_outside_the_largest_blocks(make_pool: MakePool) -> None:
    pool = make_pool(heap_size_mb=4, placement="first-fit", magazines=False)
    buffers = [pool.allocate(MIB) for _ in range(4)]
    buffers[0].release()
    buffers[2].release()
    stats = pool.get_statistics()
    assert (stats.free_mb, stats.largest_free_mb, stats.fragmentation) == (2.0, 1.0, 0.5)
    assert pool.heaps()[0].free_block_count == 2


def test_identities_after_random_operations(make_pool: MakePool) -> None:
    pool = make_pool(num_heaps=3, heap_size_mb=1)
    source = random.Random(7)
    live: list[Buffer] = []
    for step in range(3000):
        if live and source.random() < 0.5:
            live.pop(source.randrange(len(live))).release()
        else:
            live.append(pool.allocate(int(2 ** source.uniform(0, 19))))
        if step % 100 == 0:
            stats = pool.get_statistics()
            check_identities(stats)
            check_heaps(pool)
            assert stats.total_allocations - stats.total_deallocations == stats.active_allocations == len(live)
    live.clear()
    check_identities(pool.get_statistics())
    pool.trim()  # what is parked splits the free memory
    stats = pool.get_statistics()
    assert stats.fragmentation == 0.0
    assert (stats.active_allocations, stats.used_capacity_mb, stats.largest_free_mb) == (0, 0.0, 1.0)


def test_reset_starts_counting_anew_and_keeps_what_is_live(pool: MemoryPool) -> None:
    keep = [pool.allocate(MIB), pool.allocate(TOO_LARGE)]
    pool.allocate(3 * MIB).release()
    pool.reset_statistics()
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.total_deallocations, stats.exhaustion_events) == (0, 0, 0)
    assert (stats.hit_rate, stats.largest_allocation_mb, stats.avg_allocation_mb) == (0.0, 0.0, 0.0)
    assert (stats.active_allocations, stats.used_capacity_mb, stats.peak_used_mb) == (2, 1.0, 1.0)
    assert stats.fallback_used_mb == 17.0
    keep.clear()
    stats = pool.get_statistics()
    assert (stats.total_deallocations, stats.active_allocations) == (2, 0)
    check_identities(stats)


def test_without_tracking_what_is_live_stays_known(make_pool: MakePool) -> None:
    pool = make_pool(track_statistics=False)
    keep = [pool.allocate(MIB), pool.allocate(TOO_LARGE)]
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.fallback_allocations, stats.exhaustion_events) == (0, 0, 0)
    assert (stats.active_allocations, stats.used_capacity_mb, stats.fallback_used_mb) == (2, 1.0, 17.0)
    assert len(keep) == 2


def test_warmup_counts_nowhere_but_in_what_is_held_of_the_device(make_pool: MakePool) -> None:
    stats = make_pool(warmup_sizes=[4]).get_statistics()
    counted = {name for name, value in stats.to_dict().items() if value}
    assert counted == {
        "total_heaps",
        "pool_size",
        "available_count",
        "total_capacity_mb",
        "free_mb",
        "largest_free_mb",
        "committed_mb",
        "reserved_mb",
        "peak_reserved_mb",
        "device_allocations",
        "stream_lanes",
    }


def test_heap_statistics_as_dict_and_text(pool: MemoryPool) -> None:
    heap = pool.heaps()[1]
    assert heap.to_dict()["index"] == 1
    assert heap.to_dict()["capacity_mb"] == 16.0
    assert repr(heap).startswith("HeapStatistics(index=1, ")


class TestDiagnose:
    """The bands of the guide: its example code decides where a bound belongs."""

    @staticmethod
    def verdicts(pool: MemoryPool) -> dict[str, str]:
        return {finding.metric: finding.verdict for finding in pool.diagnose()}

    @pytest.mark.parametrize(
        ("fallbacks_of_100", "hit_rate", "fallback_rate"),
        [
            (0, "excellent", "excellent"),
            (4, "excellent", "acceptable"),
            (5, "good", "fair"),
            (9, "good", "fair"),
            (11, "fair", "poor"),
            (15, "fair", "poor"),
            (20, "fair", "poor"),
            (21, "poor", "poor"),
        ],
    )
    def test_rates(self, make_pool: MakePool, fallbacks_of_100: int, hit_rate: str, fallback_rate: str) -> None:
        pool = make_pool(device="simulated")
        for index in range(100):
            pool.allocate(TOO_LARGE if index < fallbacks_of_100 else 1).release()
        verdicts = self.verdicts(pool)
        assert (verdicts["hit_rate"], verdicts["fallback_rate"]) == (hit_rate, fallback_rate)

    @pytest.mark.parametrize(
        ("used_mb", "verdict"),
        [
            (0, "over-provisioned"),
            (49, "over-provisioned"),
            (50, "optimal"),
            (80, "optimal"),
            (81, "under-provisioned"),
            (95, "under-provisioned"),
            (96, "critical"),
            (100, "critical"),
        ],
    )
    def test_utilization(self, make_pool: MakePool, used_mb: int, verdict: str) -> None:
        pool = make_pool(device="simulated", heap_size_mb=100)
        buffer = pool.allocate(used_mb * MIB) if used_mb else None
        assert self.verdicts(pool)["utilization"] == verdict
        assert buffer is None or buffer.heap_index == 0

    def test_without_allocations_only_utilization_is_judged(self, pool: MemoryPool) -> None:
        assert list(self.verdicts(pool)) == ["utilization"]

    def test_each_finding_has_advice(self, pool: MemoryPool) -> None:
        pool.allocate(TOO_LARGE).release()
        findings = pool.diagnose()
        assert [finding.metric for finding in findings] == ["hit_rate", "utilization", "fallback_rate"]
        assert all(finding.advice and 0 <= finding.value <= 1 for finding in findings)
        assert repr(findings[0]).startswith("Finding(metric='hit_rate', value=0.0, verdict='poor', advice='")
        assert [finding.verdict for finding in pool.get_statistics().diagnose()] == [f.verdict for f in findings]


def test_a_failed_request_is_an_exhaustion_and_no_allocation(make_pool: MakePool) -> None:
    pool = make_pool(on_exhaustion="raise")
    with pytest.raises(OutOfMemoryError):
        pool.allocate(TOO_LARGE)
    stats = pool.get_statistics()
    assert (stats.exhaustion_events, stats.total_allocations, stats.fallback_allocations) == (1, 0, 0)


def test_names() -> None:
    assert tierpool.MetalMemoryPoolStatistics is PoolStatistics
