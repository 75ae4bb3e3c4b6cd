"""First use of memory: NumPy's own, a warm pool, and memory that was just used.

Fills 32, 128 and 512 MiB in three ways, processor time of the one thread that does it:

- ``numpy``: ``numpy.empty`` and a fill; the system hands out the pages during the fill;
- ``tierpool``: the same inside ``pool.numpy()``, from warm heaps;
- ``refill``: a fill of one array that stays alive, the floor for any allocator.

Run: ``python benchmarks/python/first_touch.py [--repetitions 7] [--json FILE]``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import measure
import tierpool

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES_MB = (32, 128, 512)


def allocate_and_fill(size_bytes: int) -> None:
    """Create an array, write all of it and drop it."""
    np.empty(size_bytes, np.uint8).fill(1)


def compare(size_mb: int, repetitions: int) -> list[measure.Row]:
    """Time the three ways in turn."""
    size_bytes = size_mb << 20
    kept = np.zeros(size_bytes, np.uint8)
    with tierpool.MemoryPool(heap_size_mb=size_mb, num_heaps=1, warmup_sizes=[size_mb]) as pool:

        def in_pool() -> float:
            with pool.numpy():
                return measure.cpu_ns(lambda: allocate_and_fill(size_bytes)) / 1e6

        contenders = {
            "refill": lambda: measure.cpu_ns(lambda: kept.fill(1)) / 1e6,
            "numpy": lambda: measure.cpu_ns(lambda: allocate_and_fill(size_bytes)) / 1e6,
            "tierpool": in_pool,
        }
        rows = measure.compare(f"python/first-touch-{size_mb}MB", "ms", contenders, repetitions, "memory written")
        if pool.get_statistics().hit_rate != 1.0:
            raise RuntimeError("the pool's arrays did not come from its heaps")
    return rows


def all_rows(repetitions: int) -> Iterator[measure.Row]:
    """Give the rows of every size."""
    for size_mb in SIZES_MB:
        yield from compare(size_mb, repetitions)


if __name__ == "__main__":
    measure.main(__doc__.splitlines()[0], all_rows)
