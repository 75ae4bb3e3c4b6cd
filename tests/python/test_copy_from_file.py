"""Files read into buffers; `cuda/test_cuda_copies.py` has what streams and GPUs add."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tierpool import DeviceError, MemoryPool, ReadError

MIB = 1 << 20


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, 9 * MIB + 5, np.uint8)


@pytest.fixture
def path(data: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool(heap_size_mb=32, num_heaps=1, warmup_sizes=[])


@pytest.mark.parametrize("spelled", [str, os.fsencode, Path])
def test_a_whole_file(pool: MemoryPool, data: np.ndarray, path: Path, spelled: type) -> None:
    buffer = pool.allocate(len(data))
    buffer.copy_from_file(spelled(path))
    assert np.array_equal(np.asarray(buffer), data)


def test_a_part_of_a_file_into_a_part_of_a_buffer(pool: MemoryPool, data: np.ndarray, path: Path) -> None:
    buffer = pool.allocate(8 * MIB)
    buffer.copy_from(bytes(8 * MIB))
    buffer.copy_from_file(path, offset_bytes=7, file_offset_bytes=MIB + 1, nbytes=5 * MIB)
    expected = np.zeros(8 * MIB, np.uint8)
    expected[7 : 7 + 5 * MIB] = data[MIB + 1 : 6 * MIB + 1]
    assert np.array_equal(np.asarray(buffer), expected)
    buffer.copy_from_file(path, file_offset_bytes=len(data))  # nothing is left there
    buffer.copy_from_file(path, nbytes=0)
    assert np.array_equal(np.asarray(buffer), expected)


def test_what_does_not_fit(pool: MemoryPool, path: Path) -> None:
    buffer = pool.allocate(16)
    with pytest.raises(ValueError, match=r"file has 9437189 bytes, the buffer 16 from offset 0; pass nbytes"):
        buffer.copy_from_file(path)
    with pytest.raises(ValueError, match="16 from offset 8"):
        buffer.copy_from_file(path, nbytes=9, offset_bytes=8)
    for name in ("nbytes", "file_offset_bytes", "offset_bytes"):
        with pytest.raises(ValueError, match=f"{name}.*-1"):
            buffer.copy_from_file(path, **{name: -1})


def test_what_the_file_does_not_have(pool: MemoryPool, path: Path) -> None:
    buffer = pool.allocate(16)
    with pytest.raises(ReadError, match=r"Cannot read 16 bytes of '.*' from offset 9437180: it has 9437189"):
        buffer.copy_from_file(path, file_offset_bytes=9437180, nbytes=16)
    with pytest.raises(ReadError, match="from offset 9437190"):
        buffer.copy_from_file(path, file_offset_bytes=9437190)


def test_what_is_no_file(pool: MemoryPool, path: Path) -> None:
    buffer = pool.allocate(16)
    with pytest.raises(OSError, match=r"Cannot open '.*missing' for reading: No such file"):
        buffer.copy_from_file(path.with_name("missing"))
    os.mkfifo(path.with_name("pipe"))
    for name in ("pipe", "."):
        with pytest.raises(ReadError, match="not a regular file"):
            buffer.copy_from_file(path.parent / name)
    with pytest.raises(ValueError, match="null"):
        buffer.copy_from_file("a\0b")
    with pytest.raises(TypeError, match="PathLike"):
        buffer.copy_from_file(3.5)  # type: ignore[arg-type]


def test_a_name_that_is_not_utf8_is_told(pool: MemoryPool) -> None:
    name = b"/nowhere/miss\xffing"
    with pytest.raises(ReadError, match="Cannot open '/nowhere/miss\udcffing' for reading: No such file"):
        pool.allocate(16).copy_from_file(name)


@pytest.fixture
def _no_turns() -> Iterator[None]:
    """A thread that has the GIL keeps it until it lets it go by itself."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_no_turns")
def test_other_threads_go_on_while_a_file_is_opened(pool: MemoryPool, path: Path) -> None:
    may_go, has_gone = threading.Lock(), []
    may_go.acquire()

    def go() -> None:
        with may_go:
            has_gone.append(True)

    buffer = pool.allocate(16)
    thread = threading.Thread(target=go)
    thread.start()
    may_go.release()
    deadline = time.monotonic() + 30
    while not has_gone and time.monotonic() < deadline:
        with suppress(ReadError):
            buffer.copy_from_file(path.with_name("missing"))
    has_gone_meanwhile = bool(has_gone)
    thread.join()
    assert has_gone_meanwhile


def test_memory_of_the_host_has_no_streams(pool: MemoryPool, path: Path) -> None:
    with pytest.raises(DeviceError, match="leave the stream out"):
        pool.allocate(16).copy_from_file(path, 0, nbytes=16)


def test_a_released_buffer(pool: MemoryPool, path: Path) -> None:
    buffer = pool.allocate(16)
    buffer.release()
    with pytest.raises(ValueError, match="released"):
        buffer.copy_from_file(path, nbytes=16)
