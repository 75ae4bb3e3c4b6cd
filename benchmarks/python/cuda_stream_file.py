"""Stream a file to the GPU: readers fill pinned memory, the GPU empties it meanwhile.

Run: ``python benchmarks/python/cuda_stream_file.py FILE``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cuda_driver import Driver
from tierpool import Buffer, MemoryPool

LINK_BYTES = 2**30


def stream_seconds(path: Path, target: Buffer) -> float:
    """Seconds that a whole file takes to the beginning of device memory."""
    start = time.perf_counter()
    target.copy_from_file(path)
    return time.perf_counter() - start


def link_seconds(driver: Driver, target: Buffer, nbytes: int) -> float:
    """Seconds that one copy of so much pinned memory takes: the link itself."""
    source = driver.allocate_pinned(nbytes)
    stream = driver.create_stream()
    seconds = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        driver.to_device(target.address, source, nbytes, stream)
        driver.synchronize(stream)
        seconds = min(seconds, time.perf_counter() - start)
    driver.destroy_stream(stream)
    driver.free_pinned(source)
    return seconds


def main() -> None:
    """Stream the file that the command line names, and say how fast it went."""
    path = Path(sys.argv[1])
    size = path.stat().st_size
    device = MemoryPool(device="cuda:0", heap_size_mb=size / 2**20 + 2, num_heaps=1, warmup_sizes=[])
    target = device.allocate(size)
    target.copy_from(bytes(1))  # makes the pinned memory
    seconds = stream_seconds(path, target)
    speed = size / 1e9 / seconds
    linked = min(size, LINK_BYTES)
    link = linked / 1e9 / link_seconds(Driver(), target, linked)
    print(f"{size / 1e9:.2f} GB in {seconds:.2f} s: {speed:.1f} GB/s, {speed / link:.0%} of the link's {link:.1f} GB/s")


if __name__ == "__main__":
    main()
