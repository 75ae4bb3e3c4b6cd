"""Memory of others that a buffer pool accounts for and pins."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tierpool import BufferPool, MemoryPool, PoolClosedError

PAGE = mmap.PAGESIZE


@pytest.fixture
def arena() -> BufferPool:
    """A pool on the host."""
    return BufferPool()


def registered(arena: BufferPool) -> list[tuple[int, int]]:
    return [(one.address, one.nbytes) for one in arena.registrations()]


def locked_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmLck:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def owners() -> dict[str, Any]:
    return {
        "ndarray": np.ones((10, 10)),
        "fortran": np.ones((10, 10), order="F"),
        "mmap": mmap.mmap(-1, 2 * PAGE),
        "array": array.array("d", [1.0] * 100),
        "ctypes": (ctypes.c_byte * 800)(),
        "Buffer": MemoryPool(heap_size_mb=1, num_heaps=1, warmup_sizes=[]).allocate(800),
    }


def base(owner: Any) -> tuple[int, int]:
    view = np.frombuffer(owner, np.uint8) if not isinstance(owner, np.ndarray) else owner
    return view.ctypes.data, view.nbytes


@pytest.mark.parametrize("kind", owners())
def test_owners_and_their_views(arena: BufferPool, kind: str) -> None:
    owner = owners()[kind]
    where = base(owner)
    views = [owner, memoryview(owner), np.asarray(memoryview(owner))[1:]]
    for view in views:
        registration = arena.register_existing(view)
        assert (registration.address, registration.nbytes) == where
    assert registered(arena) == [where]
    assert repr(registration).startswith(f"Registration(address={where[0]}, nbytes={where[1]}, pinned=")
    del owner, registration
    views.clear()
    del view
    gc.collect()
    assert registered(arena) == []


def test_a_view_keeps_the_registration_of_its_owner(arena: BufferPool) -> None:
    owner = np.ones(100)
    view = owner[50:]
    arena.register_existing(view)
    del owner
    assert arena.get_statistics().registered_bytes == 800
    del view
    assert registered(arena) == []


def test_a_mapped_file(arena: BufferPool, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(3 * PAGE))
    mapped = np.memmap(file, np.float32, mode="r")
    assert arena.register_existing(mapped[10:20]).nbytes == 3 * PAGE
    del mapped
    gc.collect()
    assert registered(arena) == []


def test_two_owners_of_one_range(arena: BufferPool) -> None:
    memory = (ctypes.c_byte * 4096)()
    first = (ctypes.c_byte * 4096).from_address(ctypes.addressof(memory))
    second = (ctypes.c_byte * 4096).from_address(ctypes.addressof(memory))
    arena.register_existing(first)
    arena.register_existing(second)
    del first
    assert len(registered(arena)) == 1
    del second
    assert registered(arena) == []


class TestRefusals:
    @pytest.mark.parametrize(
        "owner", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), np.frombuffer(b"bytes", "u1")]
    )
    def test_owners_without_weak_references(self, arena: BufferPool, owner: Any) -> None:
        with pytest.raises(TypeError, match=r"belongs to a byte.*, which allows no weak references.*copy it into"):
            arena.register_existing(owner)
        copied = np.array(bytearray(owner))
        assert arena.register_existing(copied).nbytes == 5

    @pytest.mark.parametrize("thing", [3, None, "text", [1, 2], object(), lambda: 3])
    def test_what_has_no_bytes(self, arena: BufferPool, thing: Any) -> None:
        with pytest.raises(TypeError):
            arena.register_existing(thing)

    def test_nothing_to_register(self, arena: BufferPool) -> None:
        with pytest.raises(ValueError, match="owns no bytes"):
            arena.register_existing(np.empty(0))

    def test_scratch(self, arena: BufferPool) -> None:
        lease = arena.alloc(100)
        for view in (lease, memoryview(lease), np.asarray(lease)):
            with pytest.raises(TypeError, match="a Lease is scratch"):
                arena.register_existing(view)
        with pytest.raises(TypeError, match="weak references"):
            arena.register_existing(lease.array())

    def test_overlaps(self, arena: BufferPool) -> None:
        memory = (ctypes.c_byte * 4096)()
        part = (ctypes.c_byte * 100).from_address(ctypes.addressof(memory) + 4000)
        arena.register_existing(memory)
        with pytest.raises(ValueError, match=r"overlaps .* which is registered"):
            arena.register_existing(part)
        del part
        assert len(registered(arena)) == 1

    def test_other_devices(self, arena: BufferPool) -> None:
        far = MemoryPool(device="simulated", heap_size_mb=1, num_heaps=1, warmup_sizes=[]).allocate(100)
        with pytest.raises(ValueError, match="cannot register the Buffer: the processor cannot reach"):
            arena.register_existing(far)
        weights = np.ones(100)
        on_far = BufferPool("simulated")
        with pytest.raises(ValueError, match="with a pool of device 'simulated'"):
            on_far.register_existing(weights)
        assert registered(on_far) == []
        del weights

    def test_a_closed_pool(self, arena: BufferPool) -> None:
        weights = np.ones(100)
        arena.register_existing(weights)
        arena.close()
        assert registered(arena) == []
        with pytest.raises(PoolClosedError):
            arena.register_existing(weights)
        assert not arena.unregister_existing(weights)
        del weights


def test_a_refusal_leaves_earlier_registrations(arena: BufferPool) -> None:
    memory = (ctypes.c_byte * 4096)()
    arena.register_existing(memory)
    part = (ctypes.c_byte * 100).from_address(ctypes.addressof(memory))
    for _ in range(2):
        with pytest.raises(ValueError, match="overlaps"):
            arena.register_existing(part)
    del part
    assert len(registered(arena)) == 1
    del memory
    assert registered(arena) == []


def test_unregistered_and_registered_again(arena: BufferPool) -> None:
    weights = np.ones(100)
    for _ in range(3):
        arena.register_existing(weights)
        assert arena.unregister_existing(weights[3:])
    arena.register_existing(weights)
    del weights
    assert registered(arena) == []


def test_the_pool_goes_first() -> None:
    weights = np.ones(100)
    arena = BufferPool()
    arena.register_existing(weights)
    del arena
    del weights
    gc.collect()


@pytest.fixture
def _lockable_memory() -> None:
    """Skip where locking 64 pages shows nothing, asked of the system itself."""
    before, memory = locked_bytes(), mmap.mmap(-1, 64 * PAGE)
    address = ctypes.c_void_p(np.frombuffer(memory, np.uint8).ctypes.data)
    system = ctypes.CDLL(None)
    is_locked = system.mlock(address, ctypes.c_size_t(len(memory))) == 0 and locked_bytes() > before
    system.munlock(address, ctypes.c_size_t(len(memory)))
    if not is_locked:
        pytest.skip("NOT TESTED: no memory can be locked here (raise ulimit -l); sanitizers only pretend")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of locked memory")
@pytest.mark.usefixtures("_lockable_memory")
class TestPinning:
    def test_pages_are_locked_while_anybody_wants_them(self) -> None:
        first, second = BufferPool(), BufferPool()
        before = locked_bytes()
        memory = mmap.mmap(-1, 64 * PAGE)
        assert first.register_existing(memory).pinned
        assert locked_bytes() - before == 64 * PAGE
        assert first.get_statistics().pinned_bytes == 64 * PAGE
        assert second.register_existing(memory).pinned
        first.close()
        assert locked_bytes() - before == 64 * PAGE  # the other still wants them
        second.unregister_existing(memory)
        assert locked_bytes() == before

    def test_one_page_of_two_owners(self) -> None:
        arena = BufferPool()
        before = locked_bytes()
        memory = mmap.mmap(-1, PAGE)
        start = np.frombuffer(memory, np.uint8).ctypes.data
        left = (ctypes.c_byte * 100).from_address(start)
        right = (ctypes.c_byte * 100).from_address(start + 200)
        assert all(arena.register_existing(side).pinned for side in (left, right))
        assert locked_bytes() - before == PAGE
        del left
        assert locked_bytes() - before == PAGE
        del right
        assert locked_bytes() == before

    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIERPOOL_NO_RESIDENCY", "1")
        arena = BufferPool()
        before = locked_bytes()
        memory = mmap.mmap(-1, 64 * PAGE)
        assert not arena.register_existing(memory).pinned
        assert locked_bytes() == before
        assert arena.get_statistics().registered_bytes == 64 * PAGE


def test_owners_that_die_on_other_threads(arena: BufferPool) -> None:
    def work() -> None:
        for _ in range(200):
            arena.register_existing(np.ones(1000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registered(arena) == []


def test_owners_in_cycles(arena: BufferPool) -> None:
    class Model:
        weights: np.ndarray[Any, Any]
        itself: Model

    model = Model()
    model.weights = np.ones(100)
    model.itself = model
    arena.register_existing(model.weights)
    del model
    gc.collect()
    assert registered(arena) == []
