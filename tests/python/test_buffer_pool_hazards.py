"""What went wrong with the pool that this one replaces: each case happens to a model of it, and not here."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tierpool import BufferPool, OutOfMemoryError, StaleBufferError

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1 << 10
MIB = 1 << 20


@dataclass
class Handle:
    """A view of a range of some memory, as the original handed them out: a copy is the same memory."""

    memory: bytearray
    start: int
    nbytes: int

    def read(self) -> bytes:
        return bytes(self.memory[self.start : self.start + self.nbytes])

    def write(self, value: int) -> None:
        self.memory[self.start : self.start + self.nbytes] = bytes([value]) * self.nbytes

    def slice(self, start: int, nbytes: int) -> Handle:
        return Handle(self.memory, self.start + start, nbytes)


@dataclass
class OriginalPool:
    """The original's rules: power-of-two buckets, `release` and `reset` that know nothing of each other."""

    free: dict[int, list[Handle]] = field(default_factory=dict)
    in_use: list[tuple[int, Handle]] = field(default_factory=list)
    fresh: int = 0

    def alloc(self, nbytes: int) -> Handle:
        bucket = 1 << (max(nbytes, 1) - 1).bit_length()
        waiting = self.free.get(bucket)
        if waiting:
            handle = waiting.pop()
        else:
            handle = Handle(bytearray(bucket), 0, bucket)
            self.fresh += 1
        self.in_use.append((bucket, handle))
        return Handle(handle.memory, handle.start, handle.nbytes)

    def release(self, handle: Handle) -> None:
        bucket = 1 << (max(handle.nbytes, 1) - 1).bit_length()
        self.free.setdefault(bucket, []).append(handle)

    def reset(self, after: object = None) -> None:
        for bucket, handle in self.in_use:
            self.free.setdefault(bucket, []).append(handle)
        self.in_use.clear()

    def external(self, nbytes: int) -> Handle:
        return Handle(bytearray(nbytes), 0, nbytes)

    @property
    def held_bytes(self) -> int:
        held = {id(handle.memory): len(handle.memory) for _, handle in self.in_use}
        held.update({id(handle.memory): len(handle.memory) for waiting in self.free.values() for handle in waiting})
        return sum(held.values())


class OwnHandle:
    """A lease with the reading and writing that the cases need."""

    def __init__(self, lease: Any) -> None:
        self.lease = lease
        self.nbytes: int = lease.nbytes

    def read(self) -> bytes:
        return bytes(self.lease)

    def write(self, value: int) -> None:
        with memoryview(self.lease) as view:
            view[:] = bytes([value]) * self.nbytes

    def slice(self, start: int, nbytes: int) -> memoryview:
        return memoryview(self.lease)[start : start + nbytes]


class OwnPool:
    """`tierpool.BufferPool` behind the same few calls."""

    def __init__(self, **settings: Any) -> None:
        self.pool = BufferPool(**settings)

    def alloc(self, nbytes: int) -> OwnHandle:
        return OwnHandle(self.pool.alloc(nbytes))

    def release(self, handle: Any) -> None:
        self.pool.release(handle.lease if isinstance(handle, OwnHandle) else handle)

    def reset(self, after: Any = None) -> None:
        self.pool.reset(after)

    def external(self, nbytes: int) -> bytearray:
        return bytearray(nbytes)

    @property
    def held_bytes(self) -> int:
        return self.pool.get_statistics().held_bytes

    @property
    def fresh(self) -> int:
        return self.pool.get_statistics().fresh


def place(handle: Any) -> int:
    return id(handle.memory) if isinstance(handle, Handle) else handle.lease.address


def own_bytes(first: Any, second: Any) -> None:
    """Two live handles share no byte."""
    first.write(1)
    second.write(2)
    assert set(first.read()) == {1}, "two live buffers share memory"


def release_and_reset(pool: Any) -> None:
    pool.release(pool.alloc(1000))
    pool.reset()
    own_bytes(pool.alloc(1000), pool.alloc(1000))


def release_alloc_reset(pool: Any) -> None:
    pool.release(pool.alloc(1000))
    kept = pool.alloc(1000)
    pool.reset()
    del kept
    own_bytes(pool.alloc(1000), pool.alloc(1000))


def released_twice(pool: Any) -> None:
    handle = pool.alloc(1000)
    pool.release(handle)
    with contextlib.suppress(StaleBufferError):
        pool.release(handle)
    own_bytes(pool.alloc(1000), pool.alloc(1000))


def released_after_a_reset(pool: Any) -> None:
    handle = pool.alloc(1000)
    pool.reset()
    first = pool.alloc(1000)
    with contextlib.suppress(StaleBufferError):
        pool.release(handle)
    own_bytes(first, pool.alloc(1000))


def an_external_buffer_is_released(pool: Any) -> None:
    with contextlib.suppress(TypeError):
        pool.release(pool.external(3000))
    assert pool.alloc(4096).nbytes == len(pool.alloc(4096).read()) == 4096, "an undersized buffer was reused"


def a_slice_is_released(pool: Any) -> None:
    parent = pool.alloc(4096)
    with contextlib.suppress(TypeError):
        pool.release(parent.slice(0, 1024))
    own_bytes(parent, pool.alloc(1024))


def reset_under_a_live_handle(pool: Any) -> None:
    held = pool.alloc(1000)
    held.write(1)
    view = held.slice(0, 1000)
    with contextlib.suppress(BufferError):
        pool.reset()
    pool.alloc(1000).write(2)
    assert bytes(view if isinstance(view, memoryview) else view.read()) == b"\1" * 1000, "changed under a live view"


def reset_under_work_in_flight(pool: Any) -> None:
    class InFlight:
        done = False

        def is_complete(self) -> bool:
            return self.done

        def wait(self) -> None:
            self.done = True

    queued = pool.alloc(1000)
    queued.write(1)
    where = place(queued)
    pool.reset(InFlight())
    assert place(pool.alloc(1000)) != where, "handed out while a device works on it"


def the_length_is_the_bucket(pool: Any) -> None:
    handle = pool.alloc(3000)
    assert handle.nbytes == len(handle.read()) == 3000, "the size class is seen"


def cold_and_warm_differ(pool: Any) -> None:
    cold = pool.alloc(1000).read()[:1000]
    pool.reset()
    dirty = pool.alloc(1000)
    dirty.write(7)
    del dirty
    pool.reset()
    assert pool.alloc(1000).read()[:1000] == cold, "a warm run reads other bytes than a cold one"


HAZARDS: list[tuple[Callable[[Any], None], dict[str, Any]]] = [
    (release_and_reset, {}),
    (release_alloc_reset, {}),
    (released_twice, {}),
    (released_after_a_reset, {}),
    (an_external_buffer_is_released, {}),
    (a_slice_is_released, {}),
    (reset_under_a_live_handle, {}),
    (reset_under_work_in_flight, {}),
    (the_length_is_the_bucket, {}),
    (cold_and_warm_differ, {"zero": "always"}),
]
NAMES = [case.__name__ for case, _ in HAZARDS]


@pytest.mark.parametrize(("case", "settings"), HAZARDS, ids=NAMES)
def test_the_original_fails(case: Callable[[Any], None], settings: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        case(OriginalPool())


@pytest.mark.parametrize("size_classes", ["eighths", "power-of-two", "exact"])
@pytest.mark.parametrize(("case", "settings"), HAZARDS, ids=NAMES)
def test_here_it_holds(case: Callable[[Any], None], settings: dict[str, Any], size_classes: str) -> None:
    case(OwnPool(size_classes=size_classes, **settings))


def decode_without_reset(pool: Any, tokens: int) -> None:
    """Keeps every handle, as the original did by itself."""
    held = []
    for _ in range(tokens):
        held += [pool.alloc(64) for _ in range(1750)]


def test_a_missed_reset_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="tierpool")
    original = OriginalPool()
    decode_without_reset(original, 10)
    assert original.fresh == 17500
    assert not caplog.records  # it grew in silence, until the driver gave up
    decode_without_reset(OwnPool(), 10)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["BufferPool"]
    assert "16385 fresh allocations without a reset" in caplog.records[0].getMessage()


def prefill(pool: Any, resets_by_layer: bool) -> None:
    held = []
    for _ in range(33):
        held += [pool.alloc(MIB), pool.alloc(2 * MIB)]
        if resets_by_layer:
            held.clear()
            pool.reset()


def test_prefill_meets_its_cap_instead_of_piling_up() -> None:
    original = OriginalPool()
    prefill(original, resets_by_layer=False)
    assert original.held_bytes == 33 * 3 * MIB
    capped = OwnPool(max_bytes=8 * MIB)
    with pytest.raises(OutOfMemoryError, match=r"which would exceed max_bytes 8388608 bytes .*reset\(\) earlier"):
        prefill(capped, resets_by_layer=False)
    capped.reset()
    assert capped.held_bytes <= 8 * MIB
    prefill(capped, resets_by_layer=True)
    layered = OwnPool()
    prefill(layered, resets_by_layer=True)
    assert layered.held_bytes == 3 * MIB


def test_dropping_what_a_device_still_reads_keeps_its_memory() -> None:
    """The original's residency went with the handle, before the queued command had run."""

    class Queue:
        done = False

        def is_complete(self) -> bool:
            return self.done

        def wait(self) -> None:
            self.done = True

    arena = BufferPool()
    queue = Queue()
    lease = arena.alloc(64 * KIB)
    arena.reset(after=queue)
    del lease
    arena.clear()
    stats = arena.get_statistics()
    assert (stats.quarantined_count, stats.held_count) == (1, 1)
    queue.done = True
    arena.clear()
    assert arena.get_statistics().held_count == 0
