"""When a lease ends, who notices, and what kind of object it is."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from tierpool import BufferPool, Lease, StaleBufferError


@pytest.fixture
def arena() -> BufferPool:
    """A pool on the host."""
    return BufferPool()


def views(arena: BufferPool) -> int:
    return arena.get_statistics().live_views


class TestEnd:
    def test_a_reset_makes_it_stale(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        arena.reset()
        assert not lease.live
        assert repr(lease) == "<tierpool.Lease float32 (2, 3), 24 bytes, over since a reset>"
        self.check_stale(arena, lease, "the pool was reset since it was allocated")

    def test_a_release_makes_it_stale(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        lease.release()
        assert not lease.live
        assert repr(lease) == "<tierpool.Lease float32 (2, 3), 24 bytes, released>"
        self.check_stale(arena, lease, "it was released")

    @staticmethod
    def check_stale(arena: BufferPool, lease: Lease, message: str) -> None:
        successor = arena.alloc(24)
        for use in (
            memoryview,
            np.asarray,
            np.from_dlpack,
            Lease.array,
            lambda lease: lease.array("u1"),
            Lease.release,
            arena.release,
            Lease.__dlpack__,
            Lease.__dlpack_device__,
            Lease.__enter__,
            lambda lease: lease.address,
            lambda lease: lease.__array_interface__,
        ):
            with pytest.raises(StaleBufferError, match=f"stale lease of 24 bytes.*{message}"):
                use(lease)
        assert (lease.nbytes, lease.shape, lease.dtype) == (24, (2, 3), np.float32)
        del lease
        assert successor.live
        assert arena.get_statistics().live_views == 0

    def test_dropping_releases(self, arena: BufferPool) -> None:
        lease = arena.alloc(1000)
        address = lease.address
        del lease
        assert (arena.in_use_count, arena.free_count) == (0, 1)
        assert arena.alloc(1000).address == address

    def test_dropping_a_stale_one_touches_nobody(self, arena: BufferPool) -> None:
        stale = arena.alloc(1000)
        arena.reset()
        successor = arena.alloc(1000)
        assert successor.address
        del stale
        assert successor.live
        assert arena.in_use_count == 1

    def test_foreign(self, arena: BufferPool) -> None:
        other = BufferPool()
        lease = other.alloc(8)
        with pytest.raises(StaleBufferError, match="another buffer pool gave it out"):
            arena.release(lease)
        assert lease.live

    @pytest.mark.parametrize("thing", [None, 3, b"bytes", np.ones(3)])
    def test_what_is_no_lease(self, arena: BufferPool, thing: Any) -> None:
        with pytest.raises(TypeError, match=r"release\(\) takes a tierpool.Lease, got "):
            arena.release(thing)

    def test_with(self, arena: BufferPool) -> None:
        with arena.alloc(8) as lease:
            assert lease.live
        assert not lease.live
        assert arena.in_use_count == 0
        with pytest.raises(StaleBufferError, match="it was released"), lease:
            pass

    def test_with_a_view_that_escapes(self, arena: BufferPool) -> None:
        with arena.alloc(8) as lease:
            escaped = lease.array()
        assert not lease.live
        assert arena.in_use_count == 1
        with pytest.raises(StaleBufferError, match="it was released"):
            lease.array()
        escaped[:] = 1
        del escaped
        assert arena.in_use_count == 0

    def test_with_and_a_reset_inside(self, arena: BufferPool) -> None:
        with arena.alloc(8):
            arena.reset()
        assert arena.free_count == 1

    def test_an_export_outlives_handle_and_pool(self) -> None:
        arena = BufferPool()
        lease = arena.alloc(24, "f4", (2, 3))
        lease.array()[:] = 5
        imported = np.from_dlpack(lease)
        source = arena.source
        with lease:
            pass
        del lease, arena
        assert source.get_statistics().active_allocations == 1
        assert imported.tolist() == [[5, 5, 5], [5, 5, 5]]
        del imported
        assert source.get_statistics().active_allocations == 0

    def test_it_keeps_the_memory_of_its_pool(self) -> None:
        lease = BufferPool().alloc(1000)
        gc.collect()
        lease.array()[:] = 3
        assert bytes(lease) == b"\3" * 1000

    def test_unchecked_cuts_views_off(self) -> None:
        arena = BufferPool(checked=False)
        lease = arena.alloc(8)
        view = lease.array()
        exported = lease.__dlpack__()
        arena.reset()
        assert (lease.live, views(arena), arena.free_count) == (False, 0, 1)
        successor = arena.alloc(8)
        assert successor.address == view.ctypes.data  # handed out again under the view
        del view, exported, lease
        assert successor.live
        other = successor.array()
        successor.release()
        assert views(arena) == 0
        del other
        assert arena.free_count == 1


class TestObject:
    def test_weak_references(self, arena: BufferPool) -> None:
        lease = arena.alloc(8)
        dead: list[Any] = []
        reference = weakref.ref(lease, dead.append)
        assert reference() is lease
        del lease
        assert reference() is None
        assert dead == [reference]

    def test_it_is_not_tracked(self, arena: BufferPool) -> None:
        assert not gc.is_tracked(arena.alloc(8))

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_no_copies(self, arena: BufferPool, duplicate: Any) -> None:
        with pytest.raises(TypeError, match=r"Lease cannot be copied or pickled: .*lease.array\(\).copy\(\)"):
            duplicate(arena.alloc(8))

    def test_no_constructor_no_subclass_no_attributes(self, arena: BufferPool) -> None:
        with pytest.raises(TypeError, match="cannot create"):
            Lease()
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (Lease,), {})
        with pytest.raises(AttributeError):
            arena.alloc(8).note = 1  # type: ignore[attr-defined]

    def test_repr(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        assert repr(lease) == f"<tierpool.Lease float32 (2, 3), 24 bytes at {lease.address:#x}>"

    def test_nothing_is_kept(self, arena: BufferPool) -> None:
        dtype, shape = np.dtype([("a", "i4")]), (2, 1)
        counts = sys.getrefcount(shape)
        held = [arena.alloc(8, dtype, shape) for _ in range(3000)]  # more than the free list keeps
        for lease in held:
            lease.array()
        del lease, held
        assert sys.getrefcount(shape) == counts
        assert arena.in_use_count == 0

    def test_dropped_on_another_thread(self, arena: BufferPool) -> None:
        held = [arena.alloc(8) for _ in range(2000)]
        views = [lease.array() for lease in held]
        thread = threading.Thread(target=lambda: (views.clear(), held.clear()))
        thread.start()
        thread.join()
        assert arena.in_use_count == 0
