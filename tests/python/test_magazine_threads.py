"""Magazines of many threads: nothing parked is lost or used twice, whoever ends first."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_bytes import cached, check_at_rest, in_bytes, park, used

import tierpool
from tierpool import MemoryPool, PoolClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

KIB, MIB = 1 << 10, 1 << 20
BLOCK_BYTES = 5120  # of a request for 5000 bytes
THREADS = 8


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what a thread does behind its join: the blocks go back when its last Python code has run."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    pytest.fail("it never came true")


class OtherThread:
    """A thread that runs what it is given and lives until the end of the block."""

    def __enter__(self) -> OtherThread:
        self._work: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(None)
        self._thread.join()

    def __call__(self, work: Callable[[], Any]) -> Any:
        self.start(work)
        return self.result()

    def start(self, work: Callable[[], Any]) -> None:
        self._work.put(work)

    def result(self) -> Any:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._results.put(work())
            except BaseException as error:
                self._results.put(error)
            work = None


class TestTwoThreads:
    def test_blocks_come_back_when_a_thread_ends(self, pool: MemoryPool) -> None:
        with OtherThread() as other_thread:
            other_thread(lambda: park(pool, [8, 5000, 70_000]))
            assert cached(pool) > 0
            assert pool.get_statistics().free_mb < 32
        wait_until(lambda: cached(pool) == 0)
        stats = pool.get_statistics()
        assert (stats.free_mb, stats.total_allocations, stats.total_deallocations) == (32, 3, 3)
        check_at_rest(pool, 0)

    def test_who_drops_a_buffer_keeps_its_block(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with OtherThread() as other_thread:
            held = [pool.allocate(5000)]
            address = held[0].address
            other_thread(held.clear)
            assert cached(pool) == BLOCK_BYTES
            check_at_rest(pool, 0)
            assert other_thread(lambda: pool.allocate(5000).address) == address
            kept = [pool.allocate(5000)]
            assert kept[0].address != address
            check_at_rest(pool, 1)
            before = cached(pool)
        wait_until(lambda: cached(pool) < before)
        kept += pool.allocate_batch([5000] * 10)
        assert address in {buffer.address for buffer in kept}
        check_at_rest(pool, 11)

    @pytest.mark.parametrize("how", ["allocate", "try_allocate", "allocate_batch"])
    def test_a_request_gets_what_another_thread_has_parked(self, make_pool: MakePool, how: str) -> None:
        pool = make_pool(on_exhaustion="raise")
        request = {
            "allocate": lambda: pool.allocate(16 * MIB),
            "try_allocate": lambda: pool.try_allocate(16 * MIB),
            "allocate_batch": lambda: pool.allocate_batch([16 * MIB]),
        }[how]
        with OtherThread() as other_thread:
            other_thread(lambda: park(pool, [100_000] * 20))
            pool.allocate(5000)
            assert cached(pool) > BLOCK_BYTES
            whole = request()
            assert whole is not None
            assert (used(pool), cached(pool)) == (16 * MIB, 0)
            assert pool.get_statistics().exhaustion_events == 0
            whole.release()
            assert other_thread(lambda: pool.allocate(100_000).nbytes) == 100_000
        wait_until(lambda: cached(pool) == 0)
        check_at_rest(pool, 0)

    def test_threads_that_come_and_go_leave_nothing(self, pool: MemoryPool) -> None:
        for _ in range(50):
            with OtherThread() as other_thread:
                other_thread(lambda: park(pool, range(0, 50_000, 1000)))
        wait_until(lambda: cached(pool) == 0)
        assert pool.get_statistics().total_allocations == 50 * 50
        check_at_rest(pool, 0)

    def test_threads_share_what_all_may_park(self, make_pool: MakePool) -> None:
        pool = make_pool(magazine_total_bytes=256 * KIB)
        with OtherThread() as first, OtherThread() as second:
            for other_thread in (first, second):
                other_thread(lambda: park(pool, [8 * KIB] * 100))
                assert 0 < cached(pool) <= 256 * KIB
        wait_until(lambda: cached(pool) == 0)

    def test_close_empties_them(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with OtherThread() as other_thread:
            kept = other_thread(lambda: [pool.allocate(5000) for _ in range(10)])
            other_thread(lambda: pool.allocate(70_000).release())
            pool.allocate(5000)
            pool.close()
            assert cached(pool) == 0
            kept[0].array()[:] = 1
            other_thread(kept.clear)
            assert cached(pool) == 0
            check_at_rest(pool, 0)
            with pytest.raises(PoolClosedError):
                other_thread(lambda: pool.allocate(5000))


def test_close_while_threads_fill_them(make_pool: MakePool) -> None:
    for _ in range(20):
        pool = make_pool(num_heaps=2)
        kept: list[Any] = []

        def work(pool: MemoryPool = pool, kept: list[Any] = kept) -> str:
            try:
                for number in itertools.count():
                    park(pool, [8, 5000, 70_000])
                    kept.append(pool.allocate(5000).array())
                    if number == 20:
                        pool.close()
            except PoolClosedError:
                return "closed"

        with ExitStack() as threads:
            workers = [threads.enter_context(OtherThread()) for _ in range(THREADS)]
            for worker in workers:
                worker.start(work)
            assert [worker.result() for worker in workers] == ["closed"] * THREADS
            assert cached(pool) == 0
        assert cached(pool) == 0
        check_at_rest(pool, len(kept))
        for array in kept:
            array[:] = 1
        del array
        kept.clear()
        assert (cached(pool), pool.get_statistics().free_mb) == (0, 32)
        check_at_rest(pool, 0)


class TestPoolThatHasGone:
    def test_buffers_outlive_it(self, make_pool: MakePool) -> None:
        with OtherThread() as other_thread:
            pool = make_pool()
            kept = [pool.allocate(5000).array() for _ in range(10)]
            kept += other_thread(lambda pool=pool: [pool.zeros(5000, np.uint8) for _ in range(10)])
            pool.allocate(70_000).release()
            address = kept[0].ctypes.data
            del pool
            gc.collect()
            for index, array in enumerate(kept):
                array[:] = index
            assert [int(array[-1]) for array in kept] == list(range(20))
            del array
            others = kept[::2]
            kept.clear()
            assert others[-1][0] == 18
            if sys.platform == "linux":
                assert is_mapped(address)
            other_thread(others.clear)
            if sys.platform == "linux":
                assert not is_mapped(address)

    def test_a_thread_may_end_behind_it(self, make_pool: MakePool) -> None:
        with OtherThread() as other_thread:
            pool = make_pool()
            kept = other_thread(lambda pool=pool: [pool.allocate(5000) for _ in range(3)])
            other_thread(lambda pool=pool: pool.allocate(5000).release())
            del pool
            gc.collect()
        assert np.asarray(kept[0]).size == 5000
        kept.clear()


def is_mapped(address: int) -> bool:
    spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(int(begin, 16) <= address < int(end, 16) for begin, end in spans)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_the_child_of_a_fork_works_on() -> None:
    code = """
    import os, queue, signal, sys, threading
    import tierpool

    MIB = 1 << 20
    pool = tierpool.MemoryPool(heap_size_mb=16, num_heaps=1, warmup_sizes=[], on_exhaustion="raise")
    cached = lambda: int(pool.get_statistics().cached_mb * MIB)

    def child():
        assert cached() == 5120, cached()  # the other thread did not come along, and its blocks went back
        kept = pool.allocate(5000)
        assert kept.address == address
        thread = threading.Thread(target=lambda: pool.allocate(70_000).release())
        thread.start()
        thread.join()
        kept.release()
        shared.release()
        pool.allocate(16 * MIB).release()
        pool.trim()
        stats = pool.get_statistics()
        assert (stats.used_capacity_mb, stats.cached_mb, stats.free_mb) == (0, 0, 16), stats
        pool.close()

    def park():
        [pool.allocate(size) for size in (70_000, 5000, 8)].clear()
        parked.set()
        go_on.wait()

    parked, go_on = threading.Event(), threading.Event()
    shared = pool.allocate(100)
    thread = threading.Thread(target=park)
    thread.start()
    parked.wait()
    address = pool.allocate(5000).address
    before = cached()
    assert before > 5120
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(100)  # a child that waits for a lost lock ends here
            try:
                child()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert cached() == before
    go_on.set()
    thread.join()
    shared.release()
    """
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


STEPS = st.lists(
    st.one_of(
        st.integers(0, 3 * MIB),
        st.lists(st.integers(0, 200_000), max_size=5),
        st.sampled_from(["drop-first", "drop-last", "drop-elsewhere", "trim", "reset"]),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_any_sequence_adds_up(steps: list[Any]) -> None:
    with OtherThread() as other_thread:
        pool = MemoryPool(heap_size_mb=4, num_heaps=2, warmup_sizes=[], log_exhaustion=False)
        live: list[tierpool.Buffer] = []
        for step in steps:
            if isinstance(step, int):
                live.append(pool.allocate(step))
            elif isinstance(step, list):
                live.extend(pool.allocate_batch(step))
            elif step == "trim":
                pool.trim()
                assert cached(pool) == 0
            elif step == "reset":
                pool.reset_statistics()
                assert pool.get_statistics().total_allocations == 0
            elif live:
                dropped = [live.pop(0 if step == "drop-first" else -1)]
                other_thread(dropped.clear) if step == "drop-elsewhere" else dropped.clear()
            stats = pool.get_statistics()
            assert stats.active_allocations == len(live)
            assert in_bytes(stats.used_capacity_mb + stats.cached_mb + stats.free_mb) == 8 * MIB
            spans = sorted((buffer.address, buffer.nbytes) for buffer in live)
            assert all(address + nbytes <= following for (address, nbytes), (following, _) in itertools.pairwise(spans))
        live.clear()
        assert used(pool) == 0
        pool.close()
