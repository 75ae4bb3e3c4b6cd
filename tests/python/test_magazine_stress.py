"""Magazines under load: eight threads that take, fill, hand over and drop, and see no byte of each other's."""

from __future__ import annotations

import queue
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePool = Callable[..., MemoryPool]

THREADS = 8
TURNS = 10_000


def check_at_rest(pool: MemoryPool, live: int) -> None:
    stats = pool.get_statistics()
    assert stats.active_allocations == stats.total_allocations - stats.total_deallocations == live
    assert stats.used_capacity_mb + stats.cached_mb + stats.free_mb == stats.total_capacity_mb
    assert stats.used_capacity_mb + stats.cached_mb <= stats.peak_used_mb <= stats.total_capacity_mb


def check_pattern(pattern: int, view: Any) -> None:
    assert (view[:: max(1, view.size // 8)] == pattern).all()


@pytest.fixture
def _switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_switch_often")
@pytest.mark.parametrize("settings", [{}, {"max_bytes": "64MiB", "track_origins": True}, {"magazines": False}], ids=str)
def test_stress(make_pool: MakePool, settings: dict[str, Any]) -> None:
    pool = make_pool(num_heaps=2, log_exhaustion=False, **settings)
    handed_over: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    errors: list[BaseException] = []

    def turn(pattern: int, choose: random.Random, held: list[tuple[int, Any]]) -> None:
        view = np.asarray(pool.allocate(choose.choice([8, 5000, 5100, 70_000, 300_000])))
        view[:: max(1, view.size // 8)] = pattern
        if choose.random() < 0.7:
            held.append((pattern, view))
        else:
            handed_over.put((pattern, view))
        if len(held) > choose.randrange(12):
            check_pattern(*held.pop(choose.randrange(len(held))))
        if choose.random() < 0.3 and not handed_over.empty():
            try:
                check_pattern(*handed_over.get_nowait())
            except queue.Empty:
                return

    def work(index: int) -> None:
        choose, held = random.Random(index), []
        try:
            for number in range(TURNS):
                turn((index * TURNS + number) % 251, choose, held)
                if number % 500 == index:
                    pool.trim()
                    pool.allocate_batch([100, 5000, 40_000])
            while held:
                check_pattern(*held.pop())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_at_rest(pool, handed_over.qsize())
    while not handed_over.empty():
        check_pattern(*handed_over.get())
    pool.trim()
    check_at_rest(pool, 0)
    assert pool.get_statistics().total_allocations == THREADS * (TURNS + 3 * TURNS // 500)
