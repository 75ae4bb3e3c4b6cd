"""Copies between a GPU, pinned and pageable memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tierpool import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

    from tierpool import MemoryPool

pytestmark = pytest.mark.cuda

MIB = 1 << 20
SLOT = 4 * MIB
SIZES = (0, 1, 4097, SLOT - 1, SLOT, SLOT + 1, 8 * SLOT + 5)


def pattern(nbytes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("in_stream", [False, True], ids=["at-once", "in-a-stream"])
def test_pageable_there_and_back(device_pool: MemoryPool, stream: int, nbytes: int, in_stream: bool) -> None:
    order = stream if in_stream else None
    sent, found = pattern(nbytes), np.zeros(nbytes, np.uint8)
    buffer = device_pool.allocate(nbytes, stream=order)
    kept = sent.copy()
    buffer.copy_from(sent, stream=order)
    sent[:] = 0  # it has been read
    buffer.copy_to(found, stream=order)
    assert np.array_equal(found, kept)


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("in_stream", [False, True], ids=["at-once", "in-a-stream"])
def test_a_file(device_pool: MemoryPool, stream: int, tmp_path: Path, nbytes: int, in_stream: bool) -> None:
    order = stream if in_stream else None
    path = tmp_path / "weights"
    sent, found = pattern(nbytes + 3), np.zeros(nbytes, np.uint8)
    path.write_bytes(sent.tobytes())
    buffer = device_pool.allocate(nbytes, stream=order)
    buffer.copy_from_file(path, order, file_offset_bytes=3)
    path.write_bytes(bytes(nbytes))  # it has been read
    buffer.copy_to(found, stream=order)
    assert np.array_equal(found, sent[3:])


@pytest.mark.parametrize("nbytes", SIZES)
def test_pinned_there_and_back(device_pool: MemoryPool, pinned_pool: MemoryPool, stream: int, nbytes: int) -> None:
    sent, found = pinned_pool.allocate(nbytes), pinned_pool.allocate(nbytes)
    np.asarray(sent)[:] = pattern(nbytes)
    buffer = device_pool.allocate(nbytes, stream=stream)
    buffer.copy_from(sent, stream)
    buffer.copy_to(found)
    assert bytes(found) == bytes(sent)
    between = device_pool.allocate(nbytes)
    between.copy_from(buffer)
    between.copy_to(found, stream)
    copied = np.zeros(nbytes, np.uint8)
    between.copy_to(copied)
    assert np.array_equal(copied, pattern(nbytes))


def test_a_pinned_buffer_may_go_while_it_is_copied(
    device_pool: MemoryPool, pinned_pool: MemoryPool, stream: int
) -> None:
    target = device_pool.allocate(32 * MIB)
    for index in range(256):  # twice what the pool holds at once
        staging = pinned_pool.allocate(MIB // 2)
        np.asarray(staging)[:] = index
        target.copy_from(staging, stream, offset_bytes=index % 64 * MIB // 2)
        del staging
    found = np.zeros(32 * MIB, np.uint8)
    target.copy_to(found, stream)
    assert np.array_equal(found, np.repeat(np.arange(192, 256, dtype=np.uint8), MIB // 2))
    assert pinned_pool.get_statistics().hit_rate == 1


def test_a_part_by_its_offset(device_pool: MemoryPool) -> None:
    buffer = device_pool.allocate(16)
    buffer.copy_from(bytes(16))
    buffer.copy_from(b"abcd", offset_bytes=5)
    found = bytearray(6)
    buffer.copy_to(found, offset_bytes=4)
    assert bytes(found) == b"\0abcd\0"


def test_what_does_not_fit(device_pool: MemoryPool) -> None:
    buffer = device_pool.allocate(16)
    with pytest.raises(ValueError, match=r"the source has 17 bytes, the buffer 16 from offset 0; pass a slice"):
        buffer.copy_from(bytes(17))
    with pytest.raises(ValueError, match=r"the destination has 8 bytes, the buffer 16 from offset 9"):
        buffer.copy_to(bytearray(8), offset_bytes=9)
    with pytest.raises(ValueError, match="from offset 17"):
        buffer.copy_from(b"", offset_bytes=17)


def test_what_is_no_memory(device_pool: MemoryPool) -> None:
    buffer = device_pool.allocate(16)
    with pytest.raises(TypeError, match="got int"):
        buffer.copy_from(3)
    with pytest.raises(TypeError, match="writable contiguous memory"):
        buffer.copy_to(b"0123")
    with pytest.raises(TypeError, match="contiguous"):
        buffer.copy_from(np.zeros((4, 4), np.uint8)[:, 0])
    other = device_pool.allocate(8)
    other.release()
    with pytest.raises(ValueError, match="released already"):
        buffer.copy_from(other)


def test_the_host_has_no_streams(pool: MemoryPool, stream: int) -> None:
    with pytest.raises(DeviceError, match="the processor makes this one, and has no streams; leave the stream out"):
        pool.allocate(16).copy_from(bytes(16), stream=stream)


def test_many_threads_stage_at_once(device_pool: MemoryPool) -> None:
    wrong = []

    def work(seed: int) -> None:
        sent = pattern(SLOT + seed, seed)
        found = np.zeros_like(sent)
        buffer = device_pool.allocate(len(sent))
        for _ in range(3):
            buffer.copy_from(sent)
            buffer.copy_to(found)
            if not np.array_equal(sent, found):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
