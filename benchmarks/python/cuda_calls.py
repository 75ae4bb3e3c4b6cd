"""What one call costs for memory of a GPU: a pool's buffers beside CuPy, PyTorch, RMM and the driver itself.

Sizes are 1,750 consecutive requests from the middle of a Llama decode; no buffer is used.
"""

from __future__ import annotations

import importlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from cuda_driver import Driver
from decode_loop import BUFFERS_PER_TOKEN, trace_sizes
from measure import Row, Statement, compare, main
from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOP = "for size in sizes: allocate(size)"
SIZES_MB = (32, 128, 512)
PAIRS = 10


def optional(module: str) -> Any:
    """Import a peer, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"{module} is left out: {error}")
        return None


def peer_calls() -> dict[str, Callable[[int], Any]]:
    """How each peer allocates; dropping what it returns frees."""
    calls: dict[str, Callable[[int], Any]] = {}
    if (torch := optional("torch")) is not None:
        calls["torch.empty"] = lambda size: torch.empty(size, dtype=torch.uint8, device="cuda")
        calls["torch.empty"](1)
    if (cupy := optional("cupy")) is not None:
        calls["cupy.MemoryPool"] = cupy.cuda.MemoryPool().malloc
    if (rmm := optional("rmm")) is not None:
        base = rmm.mr.CudaMemoryResource()
        pool = rmm.mr.PoolMemoryResource(base, initial_pool_size=2**30)
        calls["rmm.pool"] = lambda size: rmm.DeviceBuffer(size=size, mr=pool)
        arena = rmm.mr.ArenaMemoryResource(base, arena_size=2**30)
        calls["rmm.arena"] = lambda size: rmm.DeviceBuffer(size=size, mr=arena)
    return calls


def decode_sizes() -> list[int]:
    """Bytes of each request."""
    sizes = trace_sizes("llama-1b-decode")
    middle = len(sizes) // 2
    chosen: list[int] = sizes[middle : middle + BUFFERS_PER_TOKEN].tolist()
    return chosen


def decode_rows(repetitions: int) -> list[Row]:
    """Nanoseconds an allocation and its release."""
    sizes = decode_sizes()
    pool = MemoryPool(device="cuda:0", heap_size_mb=1024, num_heaps=1, warmup_sizes=[256])
    calls = {"tierpool": pool.allocate, **peer_calls()}
    empty = Statement(LOOP, {"sizes": sizes, "allocate": int}, len(sizes))
    statements = {name: Statement(LOOP, {"sizes": sizes, "allocate": call}, len(sizes)) for name, call in calls.items()}
    samples = {name: statement.ns for name, statement in statements.items()}
    return compare(
        "cuda/decode-sizes", "ns/pair", {**samples, "a call of int": empty.ns}, repetitions, "memory untouched"
    )


def stream_rows(repetitions: int, driver: Driver) -> list[Row]:
    """The same on a stream besides the default one."""
    sizes = decode_sizes()
    stream = driver.create_stream()
    pool = MemoryPool(device="cuda:0", heap_size_mb=1024, num_heaps=1, warmup_sizes=[256])
    calls: dict[str, Callable[[int], Any]] = {"tierpool": partial(pool.allocate, stream=stream)}
    if (torch := optional("torch")) is not None:
        torch.cuda.set_stream(torch.cuda.ExternalStream(stream))
        calls["torch.empty"] = partial(torch.empty, dtype=torch.uint8, device="cuda")
    if (cupy := optional("cupy")) is not None:
        cupy.cuda.ExternalStream(stream).use()
        calls["cupy.MemoryPool"] = cupy.cuda.MemoryPool().malloc
    statements = {name: Statement(LOOP, {"sizes": sizes, "allocate": call}, len(sizes)) for name, call in calls.items()}
    samples = {name: statement.ns for name, statement in statements.items()}
    return compare("cuda/decode-sizes-on-a-stream", "ns/pair", samples, repetitions, "memory untouched")


def large_rows(repetitions: int, driver: Driver) -> Iterator[Row]:
    """Microseconds an allocation of a large buffer and its release, on the clock."""
    pool = MemoryPool(device="cuda:0", heap_size_mb=1024, num_heaps=1, warmup_sizes=[1024])
    for size_mb in SIZES_MB:
        nbytes = size_mb * 2**20
        ways = {
            "tierpool": lambda n=nbytes: pool.allocate(n).release(),
            "cuMemAlloc": lambda n=nbytes: driver.free(driver.allocate(n)),
            "cuMemAllocAsync": lambda n=nbytes: driver.free_async(driver.allocate_async(n)),
        }
        samples = {name: lambda way=way: microseconds(way, driver) for name, way in ways.items()}
        yield from compare(f"cuda/allocate-{size_mb}MB", "us/pair", samples, repetitions, "memory untouched")


def microseconds(way: Callable[[], object], driver: Driver) -> float:
    """Time of one pair, of several, with all work of the device done."""
    start = time.perf_counter_ns()
    for _ in range(PAIRS):
        way()
    driver.synchronize()
    return (time.perf_counter_ns() - start) / 1e3 / PAIRS


def all_rows(repetitions: int) -> Iterator[Row]:
    """Run everything."""
    driver = Driver()
    yield from decode_rows(repetitions)
    yield from large_rows(repetitions, driver)
    yield from stream_rows(repetitions, driver)  # the last, as it leaves the stream with the peers


if __name__ == "__main__":
    main("What one call costs for memory of a GPU.", all_rows)
