"""Putting memory behind 4 GiB of heaps: the pool's warm-up, and one thread that touches as much.

- ``tierpool``: ``pool.warmup()`` of four heaps, on all cores;
- ``tierpool-one-core``: the same, bound to one core;
- ``one-thread-huge-pages``: one write per page of a ``numpy.empty``, which asks for huge pages;
- ``one-thread``: the same with the system's ordinary pages.

Milliseconds on the clock, since several threads work. A virtual machine's host takes free memory back, which would make
the first to touch it pay for all; so each way begins right after as much memory was touched and freed.

Run: ``python benchmarks/python/warm_up.py [--json FILE]``
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

import measure
import tierpool

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HEAPS = 4
PAGE_BYTES = mmap.PAGESIZE
WANTED_GIB = 4


def possible_gib() -> int:
    """Take 4 GiB, or what half of the free memory holds."""
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(WANTED_GIB, free_bytes // 2 >> 30))


def warm_up(size_bytes: int) -> float:
    """Warm a new pool up."""
    heap_mb = size_bytes // HEAPS >> 20
    with tierpool.MemoryPool(heap_size_mb=heap_mb, num_heaps=HEAPS, warmup_sizes=[]) as pool:
        report = pool.warmup([heap_mb])
    if report.committed_bytes != size_bytes:
        raise RuntimeError(f"{report.committed_bytes} of {size_bytes} bytes were committed")
    return report.milliseconds


def warm_up_on_one_core(size_bytes: int) -> float:
    """Warm a new pool up where only one core may be used."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return warm_up(size_bytes)
    finally:
        os.sched_setaffinity(0, cores)


def touch(pages: NDArray[np.uint8]) -> float:
    """Write to every page of new memory."""
    return measure.wall_ms(lambda: pages[::PAGE_BYTES].fill(0))


def touch_huge_pages(size_bytes: int) -> float:
    """Touch an array that large."""
    return touch(np.empty(size_bytes, np.uint8))


def touch_small_pages(size_bytes: int) -> float:
    """Touch a mapping that large."""
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        return touch(np.frombuffer(mapping, np.uint8))


def all_rows(repetitions: int) -> list[measure.Row]:
    """Compare the four ways, each on memory that the machine has at hand."""
    gib = possible_gib()
    size_bytes = gib << 30
    ways = {
        "tierpool": warm_up,
        "tierpool-one-core": warm_up_on_one_core,
        "one-thread-huge-pages": touch_huge_pages,
        "one-thread": touch_small_pages,
    }

    def sample(way: Callable[[int], float]) -> float:
        touch_huge_pages(size_bytes)
        return way(size_bytes)

    contenders = {name: functools.partial(sample, way) for name, way in ways.items()}
    return measure.compare(f"python/warm-up-{gib}GiB", "ms", contenders, repetitions, "memory committed")


if __name__ == "__main__":
    measure.main(__doc__.splitlines()[0], all_rows)
