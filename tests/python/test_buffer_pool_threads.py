"""A buffer pool on several threads, in the child of a fork, and at the end of a process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import tierpool
from tierpool import BufferPool


class TestThreads:
    def test_nobody_shares_a_byte(self) -> None:
        arena = BufferPool()
        errors: list[object] = []
        stop = threading.Event()

        def work(mark: int) -> None:
            random = np.random.default_rng(mark)
            while not stop.is_set():
                leases = [arena.alloc(int(n)) for n in random.integers(1, 5000, 10)]
                arrays = [lease.array() for lease in leases]  # so that no reset can end them
                for array in arrays:
                    array[:] = mark
                if any((array != mark).any() for array in arrays):
                    errors.append(mark)
                    return

        def reset() -> None:
            while not stop.is_set():
                try:
                    arena.reset()
                except BufferError:
                    pass
                except Exception as error:
                    errors.append(error)

        def work_through_stale(mark: int) -> None:
            while not errors and not stop.is_set():
                try:
                    work(mark)
                except tierpool.StaleBufferError:  # between alloc and array
                    continue

        threads = [threading.Thread(target=work_through_stale, args=(mark,)) for mark in range(1, 5)]
        threads.append(threading.Thread(target=reset))
        for thread in threads:
            thread.start()
        threads[0].join(1.0)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        gc.collect()
        stats = arena.get_statistics()
        assert (stats.in_use_count, stats.live_views, stats.live_requested_bytes) == (0, 0, 0)
        assert stats.held_count == stats.free_count == stats.fresh

    def test_alloc_while_another_thread_resets(self) -> None:
        arena = BufferPool()
        stop = threading.Event()

        def reset() -> None:
            while not stop.is_set():
                arena.reset()

        thread = threading.Thread(target=reset)
        thread.start()
        try:
            for _ in range(2000):
                batch = arena.alloc_batch([100, 2000, 30])
                lease = arena.alloc(50)
                del batch, lease
        finally:
            stop.set()
            thread.join()
        assert arena.get_statistics().held_count <= 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork() -> None:
    code = """
import os
import tierpool
arena = tierpool.BufferPool()
held = arena.alloc(1000)
child = os.fork()
assert held.live
arena.alloc(1000).array()[:] = 1
arena.reset()
assert not held.live
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "held",
    [
        "arena.alloc(8)",
        "arena.alloc(8, 'f4').array()",
        "memoryview(arena.alloc(8))",
        "arena.alloc(8).__dlpack__()",
        "arena.alloc_batch([8, (8, 'f4')])",
        "list(arena.alloc_batch([8, 8]))",
        "arena.reset(Event())",
        "arena.register_existing(weights)",
        "arena.step().__enter__()",
        "arena.numpy().__enter__(), np.ones(5000)",
        "(arena.get_statistics(), arena.registrations())",
    ],
)
@pytest.mark.parametrize("drops_pool", [False, True])
def test_the_process_ends_in_silence(held: str, drops_pool: bool) -> None:
    code = f"""
import logging
import numpy as np
import tierpool
logging.basicConfig(level=0)

class Event:
    def is_complete(self): return False
    def wait(self): return None

weights = np.ones(1000)
arena = tierpool.BufferPool()
first = arena.alloc(100)
held = {held}
{"del arena" if drops_pool else ""}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
