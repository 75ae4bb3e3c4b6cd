"""Many streams over one pool: no stream ever sees memory that another one was given too early.

Each buffer is filled with its own number on the stream it was allocated for, read back on that stream or on another,
and released, at once and behind the reader. All happens on the device; the host looks only at the end.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import MemoryPool

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

STREAMS = 8
BUFFERS = int(os.environ.get("STRESS_BUFFERS", "100000"))
WORDS_READ = 4


@pytest.mark.parametrize("way", ["release", "record_stream"])
def test_no_stream_sees_anothers_memory(
    make_device_pool: Callable[..., MemoryPool], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks" / "python"))
    from cuda_driver import Driver

    sys.modules.pop("cuda_driver", None)
    pool = make_device_pool(heap_size_mb=256)
    driver = Driver()
    streams = [driver.create_stream() for _ in range(STREAMS)]
    chosen = random.Random(1)
    seen = make_device_pool(device="pinned").allocate(BUFFERS * WORDS_READ * 4)
    words = np.asarray(seen).view(np.uint32).reshape(BUFFERS, WORDS_READ)
    words[:] = 0xFFFFFFFF
    for number in range(BUFFERS):
        owner, reader = chosen.choice(streams), chosen.choice(streams)
        count = 1 << chosen.randint(8, 17)
        buffer = pool.allocate(4 * count, stream=owner)
        driver.fill(buffer.address, number, count, owner)
        if reader != owner:
            driver.order_after(reader, owner)
        for place in range(WORDS_READ):
            offset = 4 * chosen.randrange(count)
            driver.to_host(words[number, place:].ctypes.data, buffer.address + offset, 4, reader)
        if way == "record_stream" and reader != owner:
            buffer.record_stream(reader)
            del buffer
        else:
            buffer.release(stream=reader)
    driver.synchronize()
    assert np.array_equal(words, np.arange(BUFFERS, dtype=np.uint32)[:, None].repeat(WORDS_READ, 1))
    statistics = pool.get_statistics()
    assert statistics.total_allocations == BUFFERS
    assert statistics.active_allocations == 0
    for stream in streams:
        driver.destroy_stream(stream)
