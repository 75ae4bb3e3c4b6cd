"""Stream a file to the GPU through pinned memory: readers fill pooled pinned buffers, the GPU empties them.

Run: ``python benchmarks/python/cuda_stream_file.py FILE``
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_driver import Driver
from tierpool import Buffer, MemoryPool

PIECE = 16 * 2**20
READERS = 12


def stream_file(path: Path, target: Buffer, pinned: MemoryPool, stream: int, readers: int = READERS) -> None:
    """Copy a whole file to the beginning of device memory; the stream has all of it on return.

    Each reader takes a pinned buffer, reads a piece of the file into it, enqueues the copy and gives the buffer back
    behind it: the pool hands it out again when the GPU has read it.
    """
    size = path.stat().st_size
    file = os.open(path, os.O_RDONLY)

    def move(offset: int) -> None:
        length = min(PIECE, size - offset)
        staging = pinned.allocate(length)
        with memoryview(staging) as view:
            done = 0
            while done < length:
                done += os.preadv(file, [view[done:]], offset + done)
        target.copy_from(staging, stream, offset_bytes=offset)
        staging.release(stream=stream)

    try:
        with ThreadPoolExecutor(readers) as pool:
            for _ in pool.map(move, range(0, size, PIECE)):
                pass
    finally:
        os.close(file)


def main() -> None:
    """Stream the file that the command line names, and say how fast it went."""
    path = Path(sys.argv[1])
    size = path.stat().st_size
    device = MemoryPool(device="cuda:0", heap_size_mb=size / 2**20 + 2, num_heaps=1, warmup_sizes=[])
    pinned = MemoryPool(device="pinned", heap_size_mb=512, num_heaps=1, warmup_sizes=[512])
    driver = Driver()
    stream = driver.create_stream()
    target = device.allocate(size)
    start = time.perf_counter()
    stream_file(path, target, pinned, stream)
    driver.synchronize(stream)
    seconds = time.perf_counter() - start
    print(f"{size / 1e9:.2f} GB in {seconds:.2f} s: {size / 1e9 / seconds:.1f} GB/s")


if __name__ == "__main__":
    main()
