"""First use of memory: NumPy's own, a warm pool, and memory that was just used.

Fills 32, 128 and 512 MiB in three ways and prints the median time of each, side by side:

- ``fresh``: ``numpy.empty`` and a fill; the system hands out the pages during the fill;
- ``pool``: the same inside ``pool.numpy()``, from warm heaps;
- ``refill``: a fill of one array that stays alive, the floor for any allocator.

Run: ``python benchmarks/python/first_touch.py [--rounds 9] [--json FILE]``
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tierpool

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES_MB = (32, 128, 512)


def milliseconds(work: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def allocate_and_fill(size_bytes: int) -> None:
    """Create an array, write all of it and drop it."""
    np.empty(size_bytes, np.uint8).fill(1)


def measure(size_mb: int, rounds: int) -> dict[str, float]:
    """Time the three ways in turn, so that what disturbs one disturbs all."""
    size_bytes = size_mb << 20
    kept = np.empty(size_bytes, np.uint8)
    kept.fill(0)
    times: dict[str, list[float]] = {"fresh": [], "pool": [], "refill": []}
    with tierpool.MemoryPool(heap_size_mb=size_mb, num_heaps=1, warmup_sizes=[size_mb]) as pool:
        for _ in range(rounds):
            times["refill"].append(milliseconds(lambda: kept.fill(1)))
            times["fresh"].append(milliseconds(lambda: allocate_and_fill(size_bytes)))
            with pool.numpy():
                times["pool"].append(milliseconds(lambda: allocate_and_fill(size_bytes)))
        hit_rate = pool.get_statistics().hit_rate
    row = {f"{way}_ms": statistics.median(samples) for way, samples in times.items()}
    row |= {
        "size_mb": size_mb,
        "pool_over_refill": row["pool_ms"] / row["refill_ms"],
        "fresh_over_pool": row["fresh_ms"] / row["pool_ms"],
        "hit_rate": hit_rate,
    }
    return row


def main() -> None:
    """Print the table and write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [measure(size_mb, options.rounds) for size_mb in SIZES_MB]
    print(
        f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}; medians of {options.rounds}"
    )
    print(f"{'MB':>5} {'fresh ms':>10} {'pool ms':>10} {'refill ms':>10} {'pool/refill':>12} {'fresh/pool':>11}")
    for row in rows:
        print(
            f"{row['size_mb']:>5} {row['fresh_ms']:>10.2f} {row['pool_ms']:>10.2f} {row['refill_ms']:>10.2f} "
            f"{row['pool_over_refill']:>12.3f} {row['fresh_over_pool']:>11.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
