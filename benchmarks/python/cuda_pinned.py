"""Pinned host memory: one buffer from a warm pool and the warm-up of 16 GiB, beside `cuMemHostAlloc`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cuda_driver import Driver
from measure import Row, compare, main, wall_ms
from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES_MB = (32, 512)
POOL_PAIRS = 1000
WARM_UP_MB = 16 * 1024


def pooled_ms(pool: MemoryPool, nbytes: int) -> float:
    """One allocation and release, of many."""
    start = time.perf_counter_ns()
    for _ in range(POOL_PAIRS):
        pool.allocate(nbytes)
    return (time.perf_counter_ns() - start) / 1e6 / POOL_PAIRS


def buffer_rows(repetitions: int, driver: Driver) -> Iterator[Row]:
    """Milliseconds an allocation and its release."""
    pool = MemoryPool(device="pinned", heap_size_mb=1024, num_heaps=1, warmup_sizes=[1024])
    for size_mb in SIZES_MB:
        nbytes = size_mb * 2**20
        samples = {
            "tierpool": lambda n=nbytes: pooled_ms(pool, n),
            "cuMemHostAlloc": lambda n=nbytes: wall_ms(lambda: driver.free_pinned(driver.allocate_pinned(n))),
        }
        yield from compare(f"cuda/pinned-{size_mb}MB", "ms/pair", samples, repetitions)


def warm_up(megabytes: int) -> float:
    """Milliseconds to make a pool of that size ready."""
    pool = MemoryPool(device="pinned", heap_size_mb=megabytes, num_heaps=1, warmup_sizes=[])
    return pool.warmup([megabytes]).milliseconds


def all_rows(repetitions: int) -> Iterator[Row]:
    """Run everything. The warm-up takes seconds, and is taken twice at most."""
    driver = Driver()
    yield from buffer_rows(repetitions, driver)

    def host_alloc() -> float:
        address = 0

        def take() -> None:
            nonlocal address
            address = driver.allocate_pinned(WARM_UP_MB * 2**20)

        elapsed = wall_ms(take)
        driver.free_pinned(address)
        return elapsed

    samples = {"tierpool": lambda: warm_up(WARM_UP_MB), "cuMemHostAlloc": host_alloc}
    yield from compare("cuda/pinned-warm-up-16GiB", "ms", samples, min(repetitions, 2))


if __name__ == "__main__":
    main("Pinned host memory.", all_rows)
