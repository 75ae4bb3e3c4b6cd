"""Many streams over one pool: no stream ever sees memory that another one was given too early.

Each buffer is filled with its own number on the stream it was allocated for, read back on that stream or on another,
and released, at once and behind the reader. All happens on the device; the host looks only at the end. In front of
every read the reader has a large memset to do: it lags behind the host and behind the other streams, so that memory
handed out too early is overwritten before it is read. A control shows that this would be seen.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tierpool import MemoryPool

    MakePool = Callable[..., MemoryPool]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

STREAMS = 8
BUFFERS = int(os.environ.get("STRESS_BUFFERS", "100000"))  # each way
CONTROL_BUFFERS = 1000
WORDS_READ = 4
BALLAST_WORDS = 128 << 20
LARGEST_WORDS = 1 << 17


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The driver by ctypes, with streams and the memory that keeps them busy."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks" / "python"))
    from cuda_driver import Driver

    sys.modules.pop("cuda_driver", None)
    driver = Driver()
    driver.streams = [driver.create_stream() for _ in range(STREAMS)]
    driver.ballast = driver.allocate(4 * BALLAST_WORDS)
    yield driver
    driver.synchronize()
    driver.free(driver.ballast)
    for stream in driver.streams:
        driver.destroy_stream(stream)


def give_back(buffer: Any, owner: int, reader: int, way: str) -> None:
    """End a buffer that `reader` uses: as it should be, or as if nobody read it."""
    if way == "record_stream" and reader != owner:
        buffer.record_stream(reader)
        buffer.release()
    else:
        buffer.release(stream=owner if way == "unordered" else reader)


def any_streams(driver: Any) -> Iterator[tuple[int, int, int]]:
    """Owner, reader and words of one buffer after the other."""
    chosen = random.Random(1)
    while True:
        yield chosen.choice(driver.streams), chosen.choice(driver.streams), LARGEST_WORDS >> chosen.randint(0, 9)


def churn(pool: MemoryPool, driver: Any, words: NDArray[np.uint32], uses: Iterator[Any], way: str) -> int:
    """Take one buffer after the other through the streams. Returns how many were seen with another's bytes."""
    words[:] = 0xFFFFFFFF
    chosen = random.Random(2)
    for number, (owner, reader, count) in zip(range(len(words)), uses, strict=False):
        buffer = pool.allocate(4 * count, stream=owner)
        driver.fill(buffer.address, number, count, owner)
        if reader != owner:
            driver.order_after(reader, owner)
        driver.fill(driver.ballast, 0, BALLAST_WORDS, reader)
        for place in range(WORDS_READ):
            offset = 4 * chosen.randrange(count)
            driver.to_host(words[number, place:].ctypes.data, buffer.address + offset, 4, reader)
        give_back(buffer, owner, reader, way)
    driver.synchronize()
    return int((words != np.arange(len(words), dtype=np.uint32)[:, None]).any(axis=1).sum())


def results(make_device_pool: MakePool, count: int) -> NDArray[np.uint32]:
    """Pinned memory that the device writes what it has read to."""
    seen = make_device_pool(device="pinned").allocate(count * WORDS_READ * 4)
    return np.asarray(seen).view(np.uint32).reshape(count, WORDS_READ)


@pytest.mark.parametrize("way", ["release", "record_stream"])
def test_no_stream_sees_anothers_memory(make_device_pool: MakePool, driver: Any, way: str) -> None:
    pool = make_device_pool(heap_size_mb=256)
    assert churn(pool, driver, results(make_device_pool, BUFFERS), any_streams(driver), way) == 0
    statistics = pool.get_statistics()
    assert statistics.total_allocations == BUFFERS
    assert statistics.active_allocations == 0


def test_memory_given_back_before_it_was_read_is_noticed(make_device_pool: MakePool, driver: Any) -> None:
    pool = make_device_pool(heap_size_mb=256)
    same = repeat((driver.streams[0], driver.streams[1], LARGEST_WORDS))
    assert churn(pool, driver, results(make_device_pool, CONTROL_BUFFERS), same, "unordered") > 0
