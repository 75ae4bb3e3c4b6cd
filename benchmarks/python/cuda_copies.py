"""Bytes between host and GPU: pooled pinned staging and pageable memory, beside the link itself and PyTorch.

The link is one `cuMemcpyHtoDAsync` of 1 GiB from `cuMemHostAlloc`ed memory. Pooled staging moves as much in pieces,
each in a buffer of a pinned pool that is allocated for it and given back behind the copy.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuda_calls import optional
from cuda_driver import Driver
from cuda_stream_file import link_seconds, stream_seconds
from measure import Row, compare, main
from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOTAL = 2**30
PIECE = 32 * 2**20
FILE_BYTES = 8 * 2**30


def gigabytes_per_second(work: Callable[[], object], driver: Driver, nbytes: int = TOTAL) -> float:
    """Bytes moved over time, to the end of all work."""
    driver.synchronize()
    start = time.perf_counter_ns()
    work()
    driver.synchronize()
    return nbytes / (time.perf_counter_ns() - start)


def copy_rows(repetitions: int, driver: Driver) -> Iterator[Row]:
    """GB/s each way."""
    device = MemoryPool(device="cuda:0", heap_size_mb=2048, num_heaps=1, warmup_sizes=[2048])
    pinned = MemoryPool(device="pinned", heap_size_mb=256, num_heaps=1, warmup_sizes=[256])
    target = device.allocate(TOTAL)
    stream = driver.create_stream()
    link_memory = driver.allocate_pinned(TOTAL)
    pageable = np.ones(TOTAL, np.uint8)
    pieces = [device.allocate(PIECE) for _ in range(TOTAL // PIECE)]

    def pooled_in() -> None:
        for piece in pieces:
            staging = pinned.allocate(PIECE)
            piece.copy_from(staging, stream=stream)
            staging.release(stream=stream)

    def pooled_out() -> None:
        for piece in pieces:
            staging = pinned.allocate(PIECE)
            piece.copy_to(staging, stream=stream)
            staging.release(stream=stream)

    def of(work: Callable[[], object]) -> Callable[[], float]:
        return lambda: gigabytes_per_second(work, driver)

    samples = {
        "tierpool": of(pooled_in),
        "the link": of(lambda: driver.to_device(target.address, link_memory, TOTAL, stream)),
    }
    yield from compare("cuda/host-to-device-pinned", "GB/s", samples, repetitions)
    samples = {
        "tierpool": of(pooled_out),
        "the link": of(lambda: driver.to_host(link_memory, target.address, TOTAL, stream)),
    }
    yield from compare("cuda/device-to-host-pinned", "GB/s", samples, repetitions)
    driver.free_pinned(link_memory)

    into = {
        "tierpool": of(lambda: target.copy_from(pageable)),
        "cuMemcpyHtoD": of(lambda: driver.to_device(target.address, pageable.ctypes.data, TOTAL, stream)),
    }
    out = {
        "tierpool": of(lambda: target.copy_to(pageable)),
        "cuMemcpyDtoH": of(lambda: driver.to_host(pageable.ctypes.data, target.address, TOTAL, stream)),
    }
    if (torch := optional("torch")) is not None:
        tensor, on_device = torch.from_numpy(pageable), torch.empty(TOTAL, dtype=torch.uint8, device="cuda")
        into["torch.copy_"] = of(lambda: on_device.copy_(tensor))
        out["torch.copy_"] = of(lambda: tensor.copy_(on_device))
    yield from compare("cuda/host-to-device-pageable", "GB/s", into, repetitions)
    yield from compare("cuda/device-to-host-pageable", "GB/s", out, repetitions)


def file_rows(repetitions: int, driver: Driver) -> list[Row]:
    """GB/s of a file in the page cache into device memory."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        block = np.arange(PIECE // 4, dtype=np.uint32).tobytes()
        for _ in range(FILE_BYTES // PIECE):
            file.write(block)
        file.flush()
        device = MemoryPool(
            device="cuda:0", heap_size_mb=FILE_BYTES >> 20, num_heaps=1, warmup_sizes=[FILE_BYTES >> 20]
        )
        weights = device.allocate(FILE_BYTES)
        path = Path(file.name)
        samples = {
            "tierpool": lambda: FILE_BYTES / stream_seconds(path, weights) / 1e9,
            "the link": lambda: TOTAL / link_seconds(driver, weights, TOTAL) / 1e9,
        }
        return compare("cuda/file-to-device", "GB/s", samples, min(repetitions, 3), "a file in memory")


def all_rows(repetitions: int) -> Iterator[Row]:
    """Run everything."""
    driver = Driver()
    yield from copy_rows(repetitions, driver)
    yield from file_rows(repetitions, driver)


if __name__ == "__main__":
    main("Bytes between host and GPU.", all_rows)
