"""The order of streams on a GPU: one of them is kept busy, so that what is not ordered behind it is read too early."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tierpool import Buffer, MemoryPool

    MakePool = Callable[..., MemoryPool]

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("_a_real_gpu")]

WORDS = 1 << 14
NBYTES = 4 * WORDS
EARLY, LATE, OTHER = 1, 2, 3
DEFAULT, PER_THREAD = 0, 2


@pytest.fixture
def reader(busy: Any) -> Iterator[int]:
    """A stream that is not ordered with any other."""
    made = busy.driver.create_stream()
    yield made
    busy.driver.synchronize()
    busy.driver.destroy_stream(made)


class LateWork:
    """Buffers that a stream has still to write, and what other streams read of them."""

    def __init__(self, busy: Any, device_pool: MemoryPool, pinned_pool: MemoryPool) -> None:
        self.busy, self.driver, self.pool = busy, busy.driver, device_pool
        self.kept = [device_pool.allocate(NBYTES), pinned_pool.allocate(NBYTES)]
        self.kept[0].copy_from(bytes(NBYTES))  # so that what copies need for themselves is there
        self.seen: NDArray[np.uint32] = np.asarray(self.kept[1]).view(np.uint32)
        self.seen[:] = 0

    def buffer(self, stream: int) -> Buffer:
        made = self.pool.allocate(NBYTES, stream=stream)
        self.driver.fill(made.address, EARLY, WORDS, stream)
        self.driver.synchronize(stream)
        self.busy.occupy(stream)
        self.driver.fill(made.address, LATE, WORDS, stream)
        return made

    def buffer_of_another_thread(self) -> Buffer:
        made: list[Buffer] = []

        def make() -> None:
            self.driver.enter()
            made.append(self.buffer(PER_THREAD))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def read(self, buffer: Buffer, stream: int) -> None:
        self.driver.to_host(self.seen.ctypes.data, buffer.address, NBYTES, stream)

    def contents(self, stream: int) -> set[int]:
        """What the stream has read, once it has."""
        self.driver.synchronize(stream)
        return set(self.seen.tolist())


@pytest.fixture
def late(busy: Any, device_pool: MemoryPool, pinned_pool: MemoryPool) -> LateWork:
    return LateWork(busy, device_pool, pinned_pool)


def contents(buffer: Buffer, stream: int | None = None) -> set[int]:
    found = np.zeros(WORDS, np.uint32)
    buffer.copy_to(found, stream)
    return set(found.tolist())


class TestExport:
    def test_a_stream_that_is_not_ordered_reads_too_early(self, late: LateWork, stream: int, reader: int) -> None:
        buffer = late.buffer(stream)
        late.read(buffer, reader)
        assert late.contents(reader) == {EARLY}
        assert not late.busy.is_over(stream)

    def test_consumers_stream_is_put_behind_the_owners(self, late: LateWork, stream: int, reader: int) -> None:
        buffer = late.buffer(stream)
        capsule = buffer.__dlpack__(stream=reader)
        late.read(buffer, reader)
        assert not late.busy.is_over(stream), "the export waited for the stream"
        assert late.contents(reader) == {LATE}
        del capsule

    def test_memory_is_kept_for_the_consumers_stream(self, late: LateWork, stream: int, reader: int) -> None:
        buffer = late.pool.allocate(NBYTES, stream=stream)
        late.driver.fill(buffer.address, LATE, WORDS, stream)
        late.driver.synchronize()
        capsule, address = buffer.__dlpack__(stream=reader), buffer.address
        late.busy.occupy(reader)
        late.read(buffer, reader)
        del buffer, capsule
        pending_bytes = late.pool.get_statistics().pending_mb * 2**20
        other = late.pool.allocate(NBYTES, stream=stream)
        late.driver.fill(other.address, OTHER, WORDS, stream)
        late.driver.synchronize(stream)
        assert not late.busy.is_over(reader)
        assert pending_bytes >= NBYTES
        assert other.address != address
        assert late.contents(reader) == {LATE}

    def test_another_threads_default_stream_has_been_waited_for(self, late: LateWork, reader: int) -> None:
        buffer = late.buffer_of_another_thread()
        capsule = buffer.__dlpack__(stream=PER_THREAD)
        late.read(buffer, reader)
        assert late.contents(reader) == {LATE}
        del capsule

    def test_interface_of_another_threads_buffer_names_a_stream_of_this_one(self, late: LateWork, reader: int) -> None:
        buffer = late.buffer_of_another_thread()
        assert buffer.__cuda_array_interface__["stream"] == 1
        late.read(buffer, reader)
        assert late.contents(reader) == {LATE}


class TestCopy:
    def test_without_a_stream_follows_the_sources_owner(self, late: LateWork, stream: int, reader: int) -> None:
        target = late.pool.allocate(NBYTES, stream=reader)
        target.copy_from(late.buffer(stream))
        assert contents(target) == {LATE}

    def test_without_a_stream_follows_the_targets_owner(self, late: LateWork, stream: int, reader: int) -> None:
        source = late.pool.allocate(NBYTES, stream=reader)
        late.driver.fill(source.address, OTHER, WORDS, reader)
        target = late.buffer(stream)
        target.copy_from(source)
        late.driver.synchronize()
        assert contents(target) == {OTHER}, "the target's stream wrote it after the copy"

    def test_without_a_stream_follows_another_thread(self, late: LateWork, stream: int) -> None:
        target = late.pool.allocate(NBYTES, stream=stream)
        target.copy_from(late.buffer_of_another_thread())
        assert contents(target) == {LATE}

    def test_to_the_host_follows_the_owner(self, late: LateWork, stream: int) -> None:
        assert contents(late.buffer(stream)) == {LATE}

    def test_with_a_stream_keeps_the_memory_of_the_source(self, late: LateWork, stream: int) -> None:
        source, target = late.pool.allocate(NBYTES), late.pool.allocate(NBYTES)
        late.driver.fill(source.address, LATE, WORDS, DEFAULT)
        late.driver.synchronize()
        late.busy.occupy(stream)
        target.copy_from(source, stream)
        address = source.address
        source.release()
        other = late.pool.allocate(NBYTES)
        late.driver.fill(other.address, OTHER, WORDS, DEFAULT)
        late.driver.synchronize(DEFAULT)
        assert not late.busy.is_over(stream)
        assert other.address != address
        assert contents(target, stream) == {LATE}

    def test_with_a_stream_keeps_pinned_memory(self, late: LateWork, make_device_pool: MakePool, stream: int) -> None:
        pool = make_device_pool(device="pinned", heap_size_mb=1)
        staging = pool.allocate(NBYTES)
        address = staging.address
        np.asarray(staging).view(np.uint32)[:] = LATE
        target = late.pool.allocate(NBYTES, stream=stream)
        late.busy.occupy(stream)
        target.copy_from(staging, stream)
        del staging
        other = pool.allocate(NBYTES)
        np.asarray(other).view(np.uint32)[:] = OTHER
        assert not late.busy.is_over(stream)
        assert other.address != address
        assert contents(target, stream) == {LATE}

    def test_pageable_memory_has_been_read_on_return(self, late: LateWork, stream: int) -> None:
        target, sent = late.pool.allocate(NBYTES, stream=stream), np.full(WORDS, LATE, np.uint32)
        late.busy.occupy(stream)
        late.driver.fill(target.address, EARLY, WORDS, stream)
        target.copy_from(sent, stream)
        sent[:] = OTHER
        assert contents(target, stream) == {LATE}


@pytest.mark.parametrize("device", ["pinned", "pinned-write-combined"])
@pytest.mark.parametrize("nbytes", [NBYTES, 100 << 20], ids=["in-a-heap", "outside"])
def test_the_gpu_writes_pinned_memory(
    make_device_pool: MakePool, busy: Any, stream: int, device: str, nbytes: int
) -> None:
    buffer = make_device_pool(device=device, log_exhaustion=False).allocate(nbytes)
    words = np.asarray(buffer).view(np.uint32)
    words[:] = EARLY
    busy.driver.fill(buffer.address, LATE, len(words) // 2, stream)
    busy.driver.synchronize(stream)
    assert (words[: len(words) // 2] == LATE).all()
    assert (words[len(words) // 2 :] == EARLY).all()
