"""A decode loop with and without an arena: what a token's scratch costs, and what its sizes waste.

Two loops over the same NumPy layers run side by side, one with arrays of NumPy's own memory and one with arrays that
are leases of a `BufferPool` reset once a token. Both must give the same tokens. The rows after that are calls alone,
1,750 buffers of mixed sizes a token, as a mixture-of-experts model of 35B takes them:

- ``alloc_batch + reset``: one batch object a token, per buffer, with the reset and the end of the batch;
- ``alloc + drop``: one lease after the other;
- peers: the same sizes from ``numpy.empty``, from a `MemoryPool` and from ``bytearray``.

Last the waste of each choice of size classes on the shipped traces.

Run: ``OPENBLAS_NUM_THREADS=1 python benchmarks/python/decode_loop.py [--repetitions 7] [--json FILE]``
"""

from __future__ import annotations

import gzip
import logging
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from measure import Row, compare, main
from tierpool import BufferPool, MemoryPool
from tierpool.trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

TRACES = Path(__file__).parents[1] / "traces"
SIZE_CLASSES = ("eighths", "power-of-two", "exact")
BUFFERS_PER_TOKEN = 1750
SMALL_BYTES = 2048  # below, eighths take whole 256-byte units
TOKENS = 50
WIDTH, HIDDEN, LAYERS, VOCABULARY = 256, 1024, 12, 2000


def trace_sizes(name: str) -> NDArray[np.int64]:
    """Sizes of all allocations of a shipped trace, in order."""
    lines = _text_of(TRACES / f"{name}.csv.gz").splitlines()[2:]
    return np.array([int(line.rpartition(",")[2]) for line in lines if line.startswith("a")], np.int64)


def _text_of(path: Path) -> str:
    read_trace(path)  # says what is wrong with it, if anything is
    return gzip.decompress(path.read_bytes()).decode()


class Model:
    """A small network with random weights: RMS norm, two matrix products and a gate a layer."""

    def __init__(self) -> None:
        random = np.random.default_rng(1)

        def weights(*shape: int) -> Array:
            scaled: Array = (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
            return scaled

        self.embedding = weights(VOCABULARY, WIDTH)
        self.up = [weights(WIDTH, HIDDEN) for _ in range(LAYERS)]
        self.down = [weights(HIDDEN, WIDTH) for _ in range(LAYERS)]

    def next_token(self, token: int, residual: Array) -> int:
        """One token. The residual stream outlives it, and so is the caller's; all else is scratch."""
        residual += self.embedding[token]
        for up, down in zip(self.up, self.down, strict=True):
            normed = residual / np.sqrt((residual * residual).mean() + 1e-5)
            hidden = normed @ up
            gated = hidden / (1 + np.exp(-hidden))
            residual += gated @ down
        residual /= np.abs(residual).max()
        return int((self.embedding @ residual).argmax())


def decode(model: Model, tokens: int, arena: BufferPool | None) -> tuple[list[int], int]:
    """Tokens, and how often the device was asked for memory after the first of them."""
    residual = np.zeros(WIDTH, np.float32)
    token, seen = 1, []
    scope = None if arena is None else arena.numpy(min_bytes=0)
    after_first = 0
    for _ in range(tokens):
        if arena is None or scope is None:
            token = model.next_token(token, residual)
        else:
            with arena.step(), scope:
                token = model.next_token(token, residual)
            after_first = after_first or arena.get_statistics().fresh
        seen.append(token)
    return seen, 0 if arena is None else arena.get_statistics().fresh - after_first


def nanoseconds(work: Callable[[], object], items: int, rounds: int) -> float:
    """Median time of one of `items`."""
    samples = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        work()
        samples.append((time.perf_counter_ns() - start) / items)
    return statistics.median(samples)


def measure_calls(sizes: NDArray[np.int64], rounds: int) -> tuple[dict[str, float], int]:
    """Nanoseconds a buffer, the loop included, and the device allocations after the first token.

    No buffer is written: the allocators are compared, not the memory.
    """
    arena = BufferPool("simulated")
    as_list = sizes.tolist()
    arena.alloc_batch(sizes)
    arena.reset()
    first_token = arena.get_statistics().fresh
    heap_mb = int(sizes.sum()) * 2 // 2**20 + 1
    pool = MemoryPool(device="simulated", heap_size_mb=heap_mb, num_heaps=1, warmup_sizes=[])

    def batch_and_reset() -> None:
        for _ in range(20):
            batch = arena.alloc_batch(sizes)
            arena.reset()
            del batch

    def batch_and_drop() -> None:
        for _ in range(20):
            arena.alloc_batch(sizes)

    def one_by_one(alloc: Callable[[int], Any]) -> Callable[[], None]:
        def work() -> None:
            for size in as_list:
                alloc(size)

        return work

    def pool_batch() -> None:
        for _ in range(20):
            pool.allocate_batch(sizes)

    ways = {
        "alloc_batch + reset": (batch_and_reset, 20 * len(sizes)),
        "alloc_batch + drop": (batch_and_drop, 20 * len(sizes)),
        "alloc + drop": (one_by_one(arena.alloc), len(sizes)),
        "MemoryPool.allocate_batch + drop": (pool_batch, 20 * len(sizes)),
        "MemoryPool.allocate + drop": (one_by_one(pool.allocate), len(sizes)),
        "numpy.empty + drop": (one_by_one(lambda size: np.empty(size, np.uint8)), len(sizes)),
        "empty loop": (one_by_one(len_of), len(sizes)),
    }
    times = {name: nanoseconds(work, items, rounds) for name, (work, items) in ways.items()}
    return times, arena.get_statistics().fresh - first_token


def len_of(size: int) -> int:
    """What a call costs that does nothing."""
    return size


def measure_waste(sizes: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Class bytes over requested bytes, less one: over all requests, and the worst of those that are not small."""
    waste = {}
    for size_classes in SIZE_CLASSES:
        arena = BufferPool("simulated", size_classes=size_classes)
        for start in range(0, len(sizes), BUFFERS_PER_TOKEN):
            arena.alloc_batch(sizes[start : start + BUFFERS_PER_TOKEN])
            arena.reset()
        largest = 0.0
        for size in np.unique(sizes[sizes >= SMALL_BYTES]).tolist():
            single = BufferPool("simulated", size_classes=size_classes)
            single.alloc(size)
            largest = max(largest, single.get_statistics().waste_ratio)
        waste[size_classes] = {"all": arena.get_statistics().waste_ratio, "worst": largest}
    return waste


def decode_rows(repetitions: int) -> list[Row]:
    """Microseconds a token of both loops, and what the arena asked of the device after the first token."""
    model, arena = Model(), BufferPool()
    expected, _ = decode(model, TOKENS, None)
    found, device_allocations = decode(model, TOKENS, arena)
    if found != expected:
        raise SystemExit("the loop with the arena gave other tokens than the one without")
    ways = {"arena": arena, "numpy": None}
    samples = {
        name: lambda using=using: nanoseconds(lambda: decode(model, TOKENS, using), TOKENS, 1) / 1e3
        for name, using in ways.items()
    }
    rows = compare("python/decode-loop", "us/token", samples, repetitions, "the same tokens")
    return [*rows, Row("python/decode-loop-device-allocations/arena", device_allocations, "count", 1)]


def call_rows(repetitions: int) -> list[Row]:
    """What one buffer costs, by each way, and what the arena asked of the device after the first token."""
    sizes = trace_sizes("llama-1b-decode")
    middle = len(sizes) // 2
    calls, device_allocations = measure_calls(sizes[middle : middle + BUFFERS_PER_TOKEN], repetitions)
    rows = [
        Row(f"python/token-buffers/{name}", value, "ns/buffer", repetitions, note="memory untouched")
        for name, value in calls.items()
    ]
    return [*rows, Row("python/token-buffers-device-allocations/arena", device_allocations, "count", 1)]


def waste_rows() -> list[Row]:
    """Share of what was asked for that each choice of size classes adds, in all and in the worst request."""
    logging.getLogger("tierpool").setLevel(logging.ERROR)  # a trace is no steps of one program: it grows to its end
    rows = []
    for trace in sorted(path.name.removesuffix(".csv.gz") for path in TRACES.glob("*.csv.gz")):
        for size_classes, waste in measure_waste(trace_sizes(trace)).items():
            rows.append(Row(f"python/waste-{trace}/{size_classes}", waste["all"], "share", 1))
            rows.append(Row(f"python/worst-waste-{trace}/{size_classes}", waste["worst"], "share", 1))
    return rows


def all_rows(repetitions: int) -> Iterator[Row]:
    """Run everything."""
    yield from decode_rows(repetitions)
    yield from call_rows(repetitions)
    yield from waste_rows()


if __name__ == "__main__":
    main("A decode loop with and without an arena.", all_rows)
