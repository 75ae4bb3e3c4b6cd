"""Stream a file to the GPU through pinned memory: readers fill pooled pinned buffers, the GPU empties them.

Run: ``python benchmarks/python/cuda_stream_file.py FILE``
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cuda_driver import Driver
from tierpool import Buffer, MemoryPool

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PIECE = 16 * 2**20
READERS = 12
# More than readers: copies that are queued keep the link busy while readers fill what it has emptied.
PIECES = 36
LINK_BYTES = 2**30


class Streamer:
    """Readers, their pinned memory and a stream: made once, for any number of files."""

    def __init__(self, driver: Driver, readers: int = READERS, pieces: int = PIECES) -> None:
        self._driver = driver
        self._stream = driver.create_stream()
        megabytes = pieces * PIECE >> 20
        self._pinned = MemoryPool(device="pinned", heap_size_mb=megabytes, num_heaps=1, warmup_sizes=[megabytes])
        # Buffers in the order in which the GPU empties them, each with the event that says so.
        self._pieces: SimpleQueue[tuple[Buffer, int]] = SimpleQueue()
        self._events = [driver.create_event() for _ in range(pieces)]
        for event in self._events:
            self._pieces.put((self._pinned.allocate(PIECE), event))
        self._readers = ThreadPoolExecutor(readers, initializer=driver.enter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._readers.shutdown()
        self._driver.synchronize(self._stream)
        for event in self._events:
            self._driver.destroy_event(event)
        self._driver.destroy_stream(self._stream)

    def copy(self, path: Path, target: Buffer) -> None:
        """Copy a whole file to the beginning of device memory."""
        size = path.stat().st_size
        file = os.open(path, os.O_RDONLY)
        try:
            for _ in self._readers.map(lambda offset: self._move(file, offset, size, target), range(0, size, PIECE)):
                pass
        finally:
            os.close(file)
        self._driver.synchronize(self._stream)

    def _move(self, file: int, offset: int, size: int, target: Buffer) -> None:
        """Read one piece and enqueue its copy."""
        staging, emptied = self._pieces.get()
        try:
            self._driver.wait(emptied)
            length = min(PIECE, size - offset)
            with memoryview(staging) as view, view[:length] as piece:
                done = 0
                while done < length:
                    with piece[done:] as rest:
                        done += os.preadv(file, [rest], offset + done)
            self._driver.to_device(target.address + offset, staging.address, length, self._stream)
            self._driver.record(emptied, self._stream)
        finally:
            self._pieces.put((staging, emptied))


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
    driver = Driver()
    with Streamer(driver) as streamer:
        start = time.perf_counter()
        streamer.copy(path, target)
        seconds = time.perf_counter() - start
    speed = size / 1e9 / seconds
    linked = min(size, LINK_BYTES)
    link = linked / 1e9 / link_seconds(driver, target, linked)
    print(f"{size / 1e9:.2f} GB in {seconds:.2f} s: {speed:.1f} GB/s, {speed / link:.0%} of the link's {link:.1f} GB/s")


if __name__ == "__main__":
    main()
