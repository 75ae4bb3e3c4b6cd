"""The documented names: every identifier that a script written from the guide or its overview uses."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

import krserve_native
import tierpool
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig, MetalMemoryPoolStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import MemoryPool

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20


@pytest.mark.parametrize(
    ("documented", "own"),
    [
        ("MetalMemoryPool", "MemoryPool"),
        ("MetalMemoryPoolConfig", "PoolConfig"),
        ("MetalMemoryPoolStatistics", "PoolStatistics"),
    ],
)
def test_the_same_classes_under_every_name(documented: str, own: str) -> None:
    assert getattr(krserve_native, documented) is getattr(tierpool, documented) is getattr(tierpool, own)


def test_config_then_attributes_then_pool() -> None:
    config = MetalMemoryPoolConfig()
    assert (config.enabled, config.heap_size_mb, config.num_heaps) == (True, 256, 4)
    assert (config.warmup_sizes, config.track_statistics, config.log_exhaustion) == ([32, 128, 512], True, True)
    config.heap_size_mb = 4
    config.num_heaps = 2
    config.warmup_sizes = [1]
    pool = MetalMemoryPool(config)
    assert isinstance(pool.get_statistics(), MetalMemoryPoolStatistics)
    assert pool.get_statistics().total_capacity_mb == 8.0


def test_del_returns_the_memory(pool: MemoryPool) -> None:
    buffer = pool.allocate(MIB)
    del buffer
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.total_deallocations, stats.active_allocations) == (1, 1, 0)


def test_both_vocabularies(pool: MemoryPool) -> None:
    keep = [pool.allocate(10), pool.allocate(17 * MIB)]
    pool.allocate(5).release()
    stats = pool.get_statistics()
    assert stats.total_acquired == stats.total_allocations == 3
    assert stats.total_released == stats.total_deallocations == 1
    assert stats.fallback_events == stats.fallback_allocations == 1
    assert (stats.exhaustion_events, stats.pool_size, stats.available_count) == (1, 2, 2 - stats.active_heaps)
    assert len(keep) == 2


class TestWholeHeaps:
    def test_acquire_gives_exactly_one_heap(self, pool: MemoryPool) -> None:
        heap = pool.acquire_heap()
        assert heap.nbytes == 16 * MIB
        assert heap.heap_index is not None
        assert (pool.get_statistics().active_heaps, pool.get_statistics().available_count) == (1, 1)
        pool.release_heap(heap)
        assert pool.get_statistics().available_count == 2

    def test_heaps_in_use_are_passed_over(self, pool: MemoryPool) -> None:
        keep = pool.allocate(1)
        heap = pool.acquire_heap()
        assert heap.heap_index != keep.heap_index

    def test_none_left_is_exhaustion_and_a_fallback(self, pool: MemoryPool) -> None:
        heaps = [pool.acquire_heap() for _ in range(3)]
        assert [heap.heap_index is None for heap in heaps] == [False, False, True]
        stats = pool.get_statistics()
        assert (stats.exhaustion_events, stats.fallback_allocations) == (1, 1)
        for heap in heaps:
            pool.release_heap(heap)
        assert pool.get_statistics().active_allocations == 0

    def test_none_left_and_no_fallback(self, make_pool: MakePool) -> None:
        pool = make_pool(on_exhaustion="raise")
        keep = pool.acquire_heap()
        with pytest.raises(tierpool.OutOfMemoryError):
            pool.acquire_heap()
        assert keep.heap_index == 0

    def test_release_ignores_none(self, pool: MemoryPool) -> None:
        pool.release_heap(None)

    def test_release_of_anything_else(self, pool: MemoryPool, make_pool: MakePool) -> None:
        heap = pool.acquire_heap()
        released = pool.acquire_heap()
        pool.release_heap(released)
        wrong: list[Any] = [pool.allocate(1), make_pool().acquire_heap(), released, 3, "heap", object()]
        for what in wrong:
            with pytest.raises(ValueError, match=r"heap|released already|another pool"):
                pool.release_heap(what)
        pool.release_heap(heap)


class TestLog:
    """The guide's texts, levels and order."""

    EXHAUSTED = (
        ("WARNING", "MetalMemoryPool: Heap exhausted for 17MB allocation, falling back to device allocation"),
        ("INFO", "MetalMemoryPool: Consider increasing heap_size_mb or num_heaps"),
    )

    def test_exhaustion_is_logged_at_once_and_then_at_most_once_a_second(
        self, pool: MemoryPool, log_lines: Any
    ) -> None:
        pool.allocate(17 * MIB)
        assert log_lines() == list(self.EXHAUSTED)
        for _ in range(20):
            pool.allocate(17 * MIB)
        found = log_lines()
        assert len(found) % 3 == 0  # a slow machine may see a second come round, with three lines
        assert len(found) < 20

    def test_the_next_report_has_the_count(self, pool: MemoryPool, log_lines: Any) -> None:
        pool.allocate(17 * MIB)
        time.sleep(1.05)
        log_lines()
        pool.allocate(17 * MIB)
        assert log_lines() == [*self.EXHAUSTED, ("WARNING", "MetalMemoryPool: Fallback allocation count: 2")]

    def test_sizes_are_written_as_in_the_guide(self, pool: MemoryPool, log_lines: Any) -> None:
        pool.allocate(17 * MIB + MIB // 2)
        assert "Heap exhausted for 17.5MB allocation" in log_lines()[0][1]

    def test_log_exhaustion_off(self, make_pool: MakePool, log_lines: Any) -> None:
        make_pool(log_exhaustion=False).allocate(17 * MIB)
        assert log_lines() == []

    def test_try_allocate_logs_nothing(self, pool: MemoryPool, log_lines: Any) -> None:
        assert pool.try_allocate(17 * MIB) is None
        assert log_lines() == []

    def test_the_level_is_asked_at_each_message(self, make_pool: MakePool, log_lines: Any, caplog: Any) -> None:
        caplog.set_level("WARNING", logger="tierpool")
        make_pool().allocate(17 * MIB)
        assert log_lines() == [self.EXHAUSTED[0]]

    @pytest.mark.usefixtures("_few_addresses")
    def test_a_pool_that_cannot_be_built(self, log_lines: Any) -> None:
        with pytest.raises(RuntimeError, match=r"^Failed to initialize MetalMemoryPool: 100 heaps of 1000MB"):
            MetalMemoryPool(heap_size_mb=1000, num_heaps=100, warmup_sizes=[])
        assert log_lines() == [("ERROR", "MetalMemoryPool: Failed to create MTLHeap (out of memory)")]

    def test_leaks_are_reported_at_close(self, pool: MemoryPool, log_lines: Any) -> None:
        keep = [pool.allocate(MIB), pool.allocate(MIB)]
        pool.allocate(1).release()
        pool.close()
        assert log_lines()[:2] == [
            ("ERROR", "MetalMemoryPool: Memory leak detected!"),
            ("ERROR", "MetalMemoryPool: Acquired: 3, Released: 1, Leaked: 2 buffers"),
        ]
        keep.clear()
        pool.close()
        assert log_lines() == []

    def test_leaked_is_what_is_live_also_after_a_reset(self, pool: MemoryPool, log_lines: Any) -> None:
        keep = pool.allocate(MIB)
        pool.reset_statistics()
        pool.close()
        assert log_lines()[1][1].endswith("Leaked: 1 buffers")
        assert keep.nbytes == MIB

    def test_origins(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(track_origins=True)
        keep = pool.allocate(10)
        pool.close()
        assert any("test_compat.py:" in text and "in test_origins" in text for _, text in log_lines())
        assert keep.nbytes == 10

    def test_arrays_are_no_leaks(self, pool: MemoryPool, log_lines: Any) -> None:
        array = pool.zeros(1000)
        pool.close()
        assert [level for level, _ in log_lines()] == ["INFO"]
        assert array.sum() == 0

    def test_dropping_a_pool_reports_nothing(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool()
        buffer = pool.allocate(10)
        del pool
        assert log_lines() == []
        assert buffer.nbytes == 10

    def test_a_handler_that_uses_the_pool(self, pool: MemoryPool) -> None:
        class Nosy(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append(pool.get_statistics().fallback_allocations)
                pool.allocate(100)

        seen: list[int] = []
        logger = logging.getLogger("tierpool")
        handler = Nosy()
        logger.addHandler(handler)
        try:
            pool.allocate(17 * MIB)
        finally:
            logger.removeHandler(handler)
        assert seen == [1]
