"""Many threads on one pool: nothing is lost, nothing is handed out twice, and the statistics add up."""

from __future__ import annotations

import itertools
import queue
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tierpool
from tierpool import MemoryPool, PoolClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
THREADS = 8
ROUNDS = 300


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run_on_threads(work: Callable[[int], object], count: int = THREADS) -> None:
    """Run `work(index)` on threads that start together, and raise what any of them raises."""
    start, errors = threading.Barrier(count), []

    def run(index: int) -> None:
        try:
            start.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def check_under_load(stats: tierpool.PoolStatistics) -> None:
    assert 0 <= stats.used_capacity_mb <= stats.peak_used_mb <= stats.total_capacity_mb
    assert 0 <= stats.active_heaps <= stats.total_heaps
    assert 0 <= stats.hit_rate <= 1
    assert 0 <= stats.fragmentation <= 1
    assert stats.fallback_allocations <= stats.exhaustion_events


def check_at_rest(pool: MemoryPool, live: int) -> None:
    stats, heaps = pool.get_statistics(), pool.heaps()
    check_under_load(stats)
    assert stats.active_allocations == stats.total_allocations - stats.total_deallocations == live
    assert stats.total_allocations == sum(heap.total_allocations for heap in heaps) + stats.fallback_allocations
    assert stats.used_capacity_mb == sum(heap.used_mb for heap in heaps)
    if live == 0:
        pool.trim()  # what is parked splits the free memory
        stats = pool.get_statistics()
        assert (stats.used_capacity_mb, stats.fallback_used_mb, stats.active_heaps, stats.fragmentation) == (0, 0, 0, 0)


def test_allocate_view_and_release(make_pool: MakePool) -> None:
    pool = make_pool(num_heaps=3)
    handed_over: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work(index: int) -> None:
        choose = random.Random(index)
        for turn in range(ROUNDS):
            pattern = (index * ROUNDS + turn) % 251
            buffer = pool.allocate(choose.choice([0, 8, 5000, 200_000, MIB]))
            view = np.asarray(buffer)
            view[:] = pattern
            if choose.random() < 0.02:
                check_under_load(pool.get_statistics())
                pool.trim()
            assert (view == pattern).all()
            end = choose.randrange(4)
            if end == 0:
                with pytest.raises(BufferError):
                    buffer.release()
                del view
                buffer.release()
            elif end == 1:
                handed_over.put((pattern, view))
            elif end == 2:
                handed_over.put((pattern, np.from_dlpack(buffer)))
            if choose.random() < 0.5 and not handed_over.empty():
                try:
                    expected, seen = handed_over.get_nowait()
                except queue.Empty:
                    continue
                assert (seen == expected).all()
                seen = None

    run_on_threads(work)
    check_at_rest(pool, handed_over.qsize())
    while not handed_over.empty():
        expected, seen = handed_over.get()
        assert (seen == expected).all()
    seen = None
    check_at_rest(pool, 0)
    assert pool.get_statistics().total_allocations == THREADS * ROUNDS


def test_batches_arrays_and_fallbacks(make_pool: MakePool) -> None:
    pool = make_pool(heap_size_mb=1, num_heaps=4, track_origins=True, log_exhaustion=False)

    def work(index: int) -> None:
        choose = random.Random(index)
        held: list[Any] = []
        with pool.numpy():
            for _ in range(ROUNDS):
                kind = choose.randrange(5)
                if kind == 0:
                    held.append(pool.allocate_batch([choose.randrange(50_000) for _ in range(5)]))
                elif kind == 1:
                    held.append(np.zeros(choose.randrange(1, 100_000), np.uint8))
                    assert not held[-1].any()
                    held[-1][:] = 0xFF
                elif kind == 2:
                    held.append(pool.allocate(2 * MIB))
                elif kind == 3:
                    held.append(pool.try_allocate(300_000))
                elif held:
                    held.pop(choose.randrange(len(held)))
                if len(held) > 10:
                    held.pop(0)

    run_on_threads(work)
    check_at_rest(pool, 0)
    assert pool.get_statistics().fallback_allocations > 0


@pytest.mark.parametrize("device", ["host", "simulated"])
def test_no_block_has_two_owners(make_pool: MakePool, device: str) -> None:
    pool = make_pool(device=device, on_exhaustion="raise")
    owned: list[list[tuple[int, int]]] = [[] for _ in range(THREADS)]
    held: list[Any] = []

    def work(index: int) -> None:
        for turn in range(ROUNDS):
            buffer = pool.allocate(1 + 37 * turn % 5000)
            held.append(buffer)
            owned[index].append((buffer.address, buffer.nbytes))

    run_on_threads(work)
    spans = sorted(span for thread in owned for span in thread)
    assert all(address + nbytes <= following for (address, nbytes), (following, _) in itertools.pairwise(spans))
    check_at_rest(pool, THREADS * ROUNDS)
    held.clear()
    check_at_rest(pool, 0)


def test_close_while_others_allocate(make_pool: MakePool) -> None:
    for _ in range(20):
        pool = make_pool(num_heaps=2)
        kept: list[Any] = []
        refused = threading.Semaphore(0)

        def work(index: int, pool: MemoryPool = pool, kept: list[Any] = kept, refused: Any = refused) -> None:
            if index == 0:
                while len(kept) < 20:
                    kept.append(pool.allocate(8).array())
                pool.close()
            try:
                while True:
                    kept.append(pool.allocate(5000).array())
                    pool.allocate(2 * MIB).release()
                    pool.allocate_batch([8, 8])
                    if len(kept) > 1000:
                        kept.clear()
            except PoolClosedError:
                refused.release()

        run_on_threads(work)
        assert [refused.acquire(blocking=False) for _ in range(THREADS)] == [True] * THREADS
        for array in kept:
            array[:] = 1
        check_at_rest(pool, len(kept))
        array = None
        kept.clear()
        check_at_rest(pool, 0)


def test_pools_built_and_dropped_on_every_thread(make_pool: MakePool) -> None:
    survivors: list[Any] = []

    def work(index: int) -> None:
        for turn in range(30):
            pool = make_pool(heap_size_mb=1, warmup_sizes=[1])
            array = pool.zeros(1000)
            assert not array.any()
            if turn % 10 == index:
                survivors.append((pool, array))
            del array
            with pool:
                buffer = pool.allocate(100)
                buffer.release()

    run_on_threads(work)
    assert len(survivors) == 3 * THREADS
    for pool, array in survivors:
        assert array.sum() == 0
        check_at_rest(pool, 1)


def test_reset_while_others_allocate(make_pool: MakePool) -> None:
    pool = make_pool()

    def work(index: int) -> None:
        for _ in range(ROUNDS):
            if index == 0:
                pool.reset_statistics()
                check_under_load(pool.get_statistics())
            else:
                pool.allocate(1000)

    run_on_threads(work)
    assert pool.get_statistics().active_allocations == 0
    pool.reset_statistics()
    held = pool.allocate(1000)
    assert held.nbytes == 1000
    check_at_rest(pool, 1)
