"""What one call costs from Python: a pool's allocations beside what else makes 4 KiB of memory.

Each row makes its objects and drops them again; no memory is touched. A figure is nanoseconds an object, the loop's own
time taken off; ``ratio`` is over ``np.empty(4096, np.uint8)`` of the same run. PyTorch and CuPy have a row where they
work.

Run: ``python benchmarks/python/call_overhead.py [--repeats 7] [--json FILE]``
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import timeit
from pathlib import Path
from typing import Any

import numpy as np

import tierpool

BATCH = 1000
REFERENCE = "np.empty(4096, np.uint8)"
SECONDS = 0.02  # of one sample

# Name, statement, objects that it makes. All names are globals of the statement, as in a user's module.
ROWS = (
    (REFERENCE, REFERENCE, 1),
    ("bytearray(4096)", "bytearray(4096)", 1),
    ("pool.allocate(4096)", "pool.allocate(4096)", 1),
    ("pool.try_allocate(4096)", "pool.try_allocate(4096)", 1),
    ("pool.allocate(4096, alignment=512)", "pool.allocate(4096, alignment=512)", 1),
    ("pool.release(pool.allocate(4096))", "pool.release(pool.allocate(4096))", 1),
    ("pool.try_allocate(too_large)", "pool.try_allocate(too_large)", 1),
    (f"pool.allocate_batch of {BATCH}", "pool.allocate_batch(sizes)", BATCH),
    (f"list(pool.allocate_batch) of {BATCH}", "list(pool.allocate_batch(sizes))", BATCH),
    (f"{BATCH} np.empty in a list", f"[np.empty(4096, np.uint8) for _ in range({BATCH})]", BATCH),
    ("np.empty(1 << 20, np.uint8)", "np.empty(1 << 20, np.uint8)", 1),
)
IN_POOL_ROWS = (
    ("np.empty(4096, np.uint8) in pool.numpy()", REFERENCE, 1),
    ("np.empty(1 << 20, np.uint8) in pool.numpy()", "np.empty(1 << 20, np.uint8)", 1),
)
PEER_ROWS = (
    ("torch", "torch.empty(4096, dtype=uint8)", "torch.empty(4096, dtype=torch.uint8)", 1),
    ("cupy", "cupy.empty(4096, uint8)", "cupy.empty(4096, cupy.uint8)", 1),
)


def peers(names: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return the rows of the libraries that are here and work; put those into `names`."""
    rows = []
    for module, name, statement, count in PEER_ROWS:
        try:
            found = {module: importlib.import_module(module)}
            exec(statement, found)  # CuPy imports without a GPU and fails here
        except Exception as error:
            print(f"no row for {module}: {type(error).__name__}: {error}".splitlines()[0])
            continue
        names.update(found)
        rows.append((name, statement, count))
    return rows


class Row:
    """Samples of one statement, taken in turn with the others': what disturbs one disturbs all."""

    def __init__(self, name: str, statement: str, count: int, names: dict[str, Any]) -> None:
        self.name = name
        self._count = count
        self._timer = timeit.Timer(statement, globals=names)
        loops, seconds = self._timer.autorange()
        self._loops = max(1, int(loops * SECONDS / seconds))
        self._samples: list[float] = []

    def sample(self, loop_ns: float = 0.0) -> None:
        """Add one sample, less the time that the loop alone takes."""
        one = self._timer.timeit(self._loops) / self._loops * 1e9
        self._samples.append((one - loop_ns) / self._count)

    @property
    def ns(self) -> float:
        """Median of the samples."""
        return statistics.median(self._samples)


def measure(repeats: int) -> list[dict[str, Any]]:
    """Time all rows and return name, nanoseconds an object, and the ratio over the reference."""
    pool = tierpool.MemoryPool(heap_size_mb=64, num_heaps=1, warmup_sizes=[64])
    names: dict[str, Any] = {
        "np": np,
        "pool": pool,
        "sizes": np.full(BATCH, 4096, np.int64),
        "too_large": 65 << 20,
    }
    loop = Row("loop", "pass", 1, names)
    plain = [Row(*row, names) for row in (*ROWS, *peers(names))]
    with pool.numpy():
        in_pool = [Row(*row, names) for row in IN_POOL_ROWS]
    for _ in range(repeats):
        loop.sample()
        for row in plain:
            row.sample(loop.ns)
        with pool.numpy():
            for row in in_pool:
                row.sample(loop.ns)
    reference_ns = plain[0].ns
    return [{"name": row.name, "ns": row.ns, "ratio": row.ns / reference_ns} for row in (*plain, *in_pool)]


def main() -> None:
    """Print the table and write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.repeats)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}; "
        f"medians of {options.repeats}, memory untouched"
    )
    print(f"{'made and dropped':<44} {'ns each':>9} {'ratio':>7}")
    for row in rows:
        print(f"{row['name']:<44} {row['ns']:>9.1f} {row['ratio']:>7.3f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
