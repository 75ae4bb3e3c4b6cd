"""NumPy inside and outside ``pool.numpy()``: creating arrays, and an expression with large temporaries.

- ``np.empty-SIZE``: ``numpy.empty`` and its end, untouched;
- ``expression-32MB``: ``sqrt(a * a + b * b) * a - b`` over 32 MiB arrays, with NumPy's own allocator, inside the
  pool, and (``preallocated``) with every ``out=`` a warm array, the floor for any allocator.

Processor time of the one thread that does it. Run: ``python benchmarks/python/numpy_in_pool.py [--json FILE]``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import measure
import tierpool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SIZES_BYTES = {"4KB": 4 << 10, "1MB": 1 << 20, "64MB": 64 << 20}
EXPRESSION_BYTES = 32 << 20


def inside_and_outside(pool: tierpool.MemoryPool, sample: Callable[[], float]) -> dict[str, Callable[[], float]]:
    """Build the two contenders that sample the same."""

    def inside() -> float:
        with pool.numpy():
            return sample()

    return {"numpy": sample, "tierpool": inside}


def empty_rows(pool: tierpool.MemoryPool, repetitions: int) -> Iterator[measure.Row]:
    """Create and drop an array of each size."""
    for size, size_bytes in SIZES_BYTES.items():
        statement = measure.Statement("np.empty(size_bytes, np.uint8)", {"np": np, "size_bytes": size_bytes})
        contenders = inside_and_outside(pool, statement.ns)
        yield from measure.compare(f"python/np.empty-{size}", "ns/pair", contenders, repetitions, "memory untouched")


def preallocated(a: NDArray[np.float64], b: NDArray[np.float64]) -> Callable[[], object]:
    """Give the expression with every result in an array that is already there."""
    first, second = np.zeros_like(a), np.zeros_like(a)

    def work() -> object:
        np.multiply(a, a, out=first)
        np.multiply(b, b, out=second)
        np.add(first, second, out=first)
        np.sqrt(first, out=first)
        np.multiply(first, a, out=first)
        return np.subtract(first, b, out=first)

    return work


def expression_rows(pool: tierpool.MemoryPool, repetitions: int) -> list[measure.Row]:
    """Evaluate the expression in three ways."""
    count = EXPRESSION_BYTES // 8
    a, b = np.linspace(0.0, 1.0, count), np.linspace(1.0, 2.0, count)
    contenders = inside_and_outside(pool, lambda: measure.cpu_ns(lambda: np.sqrt(a * a + b * b) * a - b) / 1e6)
    with_out = preallocated(a, b)
    contenders["preallocated"] = lambda: measure.cpu_ns(with_out) / 1e6
    return measure.compare("python/expression-32MB", "ms", contenders, repetitions, "memory written")


def all_rows(repetitions: int) -> Iterator[measure.Row]:
    """Give the rows of all workloads, each in one pool."""
    with tierpool.MemoryPool(heap_size_mb=256, num_heaps=1, warmup_sizes=[256]) as pool:
        yield from empty_rows(pool, repetitions)
        yield from expression_rows(pool, repetitions)
        if pool.get_statistics().fallback_allocations:
            raise RuntimeError("some arrays did not come from the pool's heaps")


if __name__ == "__main__":
    measure.main(__doc__.splitlines()[0], all_rows)
