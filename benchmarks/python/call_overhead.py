"""What one call costs from Python: a pool's allocations beside what else makes 4 KiB of memory, made and dropped again.

- ``allocate-4KB``: one buffer; also ``bytearray``, and PyTorch and CuPy where they work;
- ``try-allocate-4KB``, ``allocate-4KB-alignment-512``, ``allocate-and-release-4KB``: the other ways to one buffer;
- ``failing-try-allocate``: a request above the heap, answered with None;
- ``batch-of-1000``: all at once, per buffer; ``batch-of-1000-as-buffers``: also turned into a list of `Buffer`.

``numpy`` is ``np.empty(4096, np.uint8)``, for the batches 1,000 of them in a list; ``numpy_in_pool.py`` has it inside
``pool.numpy()``. Processor time of the one thread, the loop's own taken off.

Run: ``python benchmarks/python/call_overhead.py [--repetitions 7] [--json FILE]``
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

import measure
import tierpool

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAP_MB = 64
BATCH = 1000
ONE = "np.empty(4096, np.uint8)"
MANY = f"[np.empty(4096, np.uint8) for _ in range({BATCH})]"

# Workload: the pool's statement, NumPy's, objects that each makes. All names are globals, as in a user's module.
WORKLOADS = {
    "allocate-4KB": ("pool.allocate(4096)", ONE, 1),
    "try-allocate-4KB": ("pool.try_allocate(4096)", ONE, 1),
    "allocate-4KB-alignment-512": ("pool.allocate(4096, alignment=512)", ONE, 1),
    "allocate-and-release-4KB": ("pool.release(pool.allocate(4096))", ONE, 1),
    "failing-try-allocate": ("pool.try_allocate(too_large)", ONE, 1),
    f"batch-of-{BATCH}": ("pool.allocate_batch(sizes)", MANY, BATCH),
    f"batch-of-{BATCH}-as-buffers": ("list(pool.allocate_batch(sizes))", MANY, BATCH),
}
# Beside the first workload. Module: its statement.
PEERS = {
    "builtins": "bytearray(4096)",
    "torch": "torch.empty(4096, dtype=torch.uint8)",
    "cupy": "cupy.empty(4096, cupy.uint8)",
}
CONTENDER_NAMES = {"builtins": "bytearray"}


def peers() -> dict[str, measure.Statement]:
    """Give the contenders that are here and work."""
    found = {}
    for module, statement in PEERS.items():
        try:
            names = {module: importlib.import_module(module)}
            exec(statement, dict(names))  # CuPy imports without a GPU and fails here
        except Exception as error:
            print(f"no row for {module}: {type(error).__name__}: {error}".splitlines()[0])
            continue
        found[CONTENDER_NAMES.get(module, module)] = measure.Statement(statement, names)
    return found


def all_rows(repetitions: int) -> Iterator[measure.Row]:
    """Give the rows of all workloads, each in one pool."""
    with tierpool.MemoryPool(heap_size_mb=HEAP_MB, num_heaps=1, warmup_sizes=[HEAP_MB]) as pool:
        names: dict[str, Any] = {
            "np": np,
            "pool": pool,
            "sizes": np.full(BATCH, 4096, np.int64),
            "too_large": (HEAP_MB + 1) << 20,
        }
        others = peers()
        for workload, (ours, numpys, objects) in WORKLOADS.items():
            statements = {
                "tierpool": measure.Statement(ours, names, objects),
                "numpy": measure.Statement(numpys, names, objects),
                **others,
            }
            contenders = {contender: statement.ns for contender, statement in statements.items()}
            yield from measure.compare(f"python/{workload}", "ns/pair", contenders, repetitions, "memory untouched")
            others = {}
        if pool.get_statistics().fallback_allocations:
            raise RuntimeError("some buffers did not come from the pool's heaps")


if __name__ == "__main__":
    measure.main(__doc__.splitlines()[0], all_rows)
