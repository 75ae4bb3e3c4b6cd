"""Buffers: who sees their memory, and when it goes back."""

from __future__ import annotations

import gc
import struct
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tierpool
from tierpool import MemoryPool

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds


def live(pool: MemoryPool) -> int:
    return pool.get_statistics().active_allocations


class TestViews:
    def test_memoryview_reads_and_writes_the_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(16)
        view = memoryview(buffer)
        assert (view.nbytes, view.format, view.itemsize, view.shape, view.readonly) == (16, "B", 1, (16,), False)
        assert view.contiguous
        view[:4] = b"abcd"
        assert bytes(buffer)[:4] == b"abcd"
        assert bytes(np.asarray(buffer)[:4]) == b"abcd"

    def test_struct_reads_and_writes_the_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(16)
        struct.pack_into("<QI", buffer, 4, 1 << 60, 7)
        assert struct.unpack_from("<QI", buffer, 4) == (1 << 60, 7)
        buffer.release()

    def test_every_view_sees_the_same_address(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(64)
        arrays = [np.asarray(buffer), np.frombuffer(buffer, np.uint8), buffer.array(), np.from_dlpack(buffer)]
        assert {array.ctypes.data for array in arrays} == {buffer.address}

    @pytest.mark.parametrize(
        "see",
        [
            memoryview,
            np.asarray,
            np.from_dlpack,
            partial(np.frombuffer, dtype=np.uint16),
            lambda buffer: buffer.array(np.float32, 2),
            lambda buffer: memoryview(buffer)[2:4],
            lambda buffer: memoryview(buffer).cast("d"),
            lambda buffer: buffer.array(np.int16)[1::2].view(np.uint16)[:1],
            lambda buffer: np.asarray(memoryview(buffer)[:4]),
        ],
        ids=["memoryview", "asarray", "from_dlpack", "frombuffer", "array", "slice", "cast", "views", "array_of_slice"],
    )
    @pytest.mark.parametrize("nbytes", [8, TOO_LARGE], ids=["heap", "fallback"])
    def test_the_last_view_keeps_the_memory(self, pool: MemoryPool, see: Any, nbytes: int) -> None:
        buffer = pool.allocate(nbytes)
        memoryview(buffer)[:8] = bytes(range(8))
        alone = see(buffer)
        expected = bytes(alone)
        with pytest.raises(BufferError, match=rf"cannot release the buffer of {nbytes} bytes: .*drop"):
            buffer.release()
        del buffer
        assert live(pool) == 1
        assert bytes(alone) == expected
        del alone
        assert live(pool) == 0

    def test_views_are_counted_one_by_one(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        views = [memoryview(buffer) for _ in range(5)]
        while views:
            with pytest.raises(BufferError, match=rf"live views \({len(views)}\)"):
                buffer.release()
            views.pop().release()
        buffer.release()
        assert live(pool) == 0

    def test_a_copy_is_no_view(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        copied = bytes(buffer), np.array(buffer), bytearray(buffer)
        buffer.release()
        assert [len(one) for one in copied] == [8, 8, 8]

    def test_a_consumer_without_a_view_keeps_the_object(self, pool: MemoryPool) -> None:
        array = np.ndarray((8,), np.uint8, pool.allocate(8))
        gc.collect()
        array[:] = 1
        assert live(pool) == 1
        del array
        assert live(pool) == 0

    def test_a_failed_read_leaves_no_view(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(6)
        with pytest.raises(ValueError, match="buffer size must be a multiple"):
            np.frombuffer(buffer, np.uint32)
        with pytest.raises(struct.error):
            struct.unpack_from("<Q", buffer)
        buffer.release()

    def test_of_no_bytes(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(0)
        assert (buffer.nbytes, buffer.heap_index) == (0, 0)
        assert buffer.address % 256 == 0 != buffer.address
        assert pool.get_statistics().used_capacity_mb * MIB == 256
        views = memoryview(buffer), np.asarray(buffer), buffer.array(np.float64), np.from_dlpack(buffer)
        assert [len(view) for view in views] == [0, 0, 0, 0]
        assert bytes(buffer) == b""
        with pytest.raises(BufferError):
            buffer.release()
        del views
        buffer.release()
        assert live(pool) == 0


class TestRelease:
    @pytest.mark.parametrize("by_pool", [True, False])
    def test_once(self, pool: MemoryPool, by_pool: bool) -> None:
        buffer = pool.allocate(MIB)
        release = partial(pool.release, buffer) if by_pool else buffer.release
        release()
        assert buffer.released
        assert live(pool) == 0
        with pytest.raises(ValueError, match=r"1048576 bytes was released already; allocate a new one"):
            release()
        assert pool.get_statistics().total_deallocations == 1

    def test_of_another_pools_buffer(self, pool: MemoryPool, make_pool: MakePool) -> None:
        other = make_pool()
        buffer = other.allocate(10)
        with pytest.raises(ValueError, match=r"10 bytes belongs to another pool; release it there"):
            pool.release(buffer)
        assert not buffer.released
        assert live(other) == 1

    @pytest.mark.parametrize("what", [None, 3, b"bytes"])
    def test_of_other_types(self, pool: MemoryPool, what: Any) -> None:
        with pytest.raises(TypeError, match=r"takes a tierpool\.Buffer, got"):
            pool.release(what)

    def test_what_is_left_of_a_released_buffer(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        buffer.release()
        assert (buffer.nbytes, buffer.heap_index, buffer.released) == (8, 0, True)
        for use in (
            memoryview,
            bytes,
            np.asarray,
            np.from_dlpack,
            lambda released: released.address,
            lambda released: released.array(),
            lambda released: released.__array_interface__,
            lambda released: released.__dlpack__(),
            lambda released: released.__dlpack_device__(),
            lambda released: released.__enter__(),
        ):
            with pytest.raises(ValueError, match="8 bytes was released already"):
                use(buffer)

    def test_lets_go_of_the_pool(self, make_pool: MakePool) -> None:
        pool = make_pool()
        gone = weakref.ref(pool)
        exported, plain = pool.allocate(8), pool.allocate(8)
        exported.__dlpack__()
        for buffer in (exported, plain):
            buffer.release()
        del pool
        assert gone() is None
        for buffer in (exported, plain):
            with pytest.raises(ValueError, match="released"):
                buffer.__dlpack_device__()

    def test_after_close(self, pool: MemoryPool) -> None:
        buffer, seen = pool.allocate(8), np.asarray(pool.allocate(8))
        pool.close()
        memoryview(buffer)[0] = seen[0] = 7
        assert live(pool) == 2
        buffer.release()
        del seen
        assert live(pool) == 0


class TestWith:
    def test_gives_the_memory_back(self, pool: MemoryPool) -> None:
        with pool.allocate(MIB) as buffer:
            assert buffer.nbytes == MIB
        assert buffer.released
        assert live(pool) == 0

    def test_gives_up_the_handle_and_the_last_view_returns_the_memory(self, pool: MemoryPool) -> None:
        with pool.allocate(MIB) as buffer:
            array, export = np.asarray(buffer), np.from_dlpack(buffer)
        assert buffer.released
        with pytest.raises(ValueError, match="released already"):
            buffer.release()
        with pytest.raises(ValueError, match="released already"):
            memoryview(buffer)
        array[:] = 1
        del array
        assert live(pool) == 1
        assert export.sum() == MIB
        del export
        assert live(pool) == 0

    def test_keeps_the_memory_of_a_bare_address_for_the_object(self, pool: MemoryPool) -> None:
        with pool.allocate(8) as buffer:
            interface = buffer.__array_interface__
        assert interface["data"][0] != 0
        assert buffer.released
        assert live(pool) == 1
        del buffer
        assert live(pool) == 0

    def test_passes_exceptions_on_and_allows_an_earlier_release(self, pool: MemoryPool) -> None:
        def release_and_fail() -> None:
            with pool.allocate(8) as inner:
                inner.release()
                raise KeyError

        buffer = pool.allocate(8)
        buffer.release()
        with pytest.raises(KeyError):
            release_and_fail()
        with pytest.raises(ValueError, match="released"), buffer:
            pass
        assert live(pool) == 0


class TestArrayInterface:
    def test_describes_the_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(10)
        interface = buffer.__array_interface__
        assert interface == {
            "shape": (10,),
            "typestr": "|u1",
            "data": (buffer.address, False),
            "strides": None,
            "version": 3,
        }

    def test_refuses_release_and_goes_with_the_object(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        _ = buffer.__array_interface__
        for release in (buffer.release, partial(pool.release, buffer)):
            with pytest.raises(
                BufferError, match="8 bytes: __array_interface__ gave its address away; drop the buffer"
            ):
                release()
        assert not buffer.released
        del buffer, release
        assert live(pool) == 0

    def test_its_consumer_keeps_the_object(self, pool: MemoryPool) -> None:
        class OnlyInterface:
            def __init__(self, buffer: tierpool.Buffer) -> None:
                self.buffer = buffer
                self.__array_interface__ = buffer.__array_interface__

        array = np.asarray(OnlyInterface(pool.allocate(8)))
        gc.collect()
        array[:] = 5
        assert live(pool) == 1
        assert array.tolist() == [5] * 8
        del array
        assert live(pool) == 0


class TestArray:
    def test_shares_the_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(24)
        array = buffer.array(np.float32, (2, 3))
        array[:] = np.arange(6).reshape(2, 3)
        assert buffer.array(np.float32).tolist() == [0, 1, 2, 3, 4, 5]
        assert buffer.array(dtype="u1", shape=np.int64(4)).shape == (4,)
        assert buffer.array().dtype == np.uint8
        assert buffer.array([("a", "<u4"), ("b", "<f4")]).shape == (3,)

    @pytest.mark.parametrize(
        ("dtype", "shape", "error", "message"),
        [
            (np.float32, None, ValueError, "10 bytes does not hold a whole number of float32 items of 4 bytes; give"),
            ("S0", None, ValueError, "items of 0 bytes; give a shape"),
            (np.uint8, 11, ValueError, "shape 11 of uint8 needs more than the buffer's 10 bytes; allocate a larger"),
            (np.float64, (2, 1), ValueError, "needs more than the buffer's 10 bytes"),
            (np.uint8, (1 << 40, 1 << 40), ValueError, "too big"),
            (np.uint8, -2, ValueError, "negative"),
            (object, None, TypeError, "dtype object holds Python objects"),
            ([("a", "O")], 1, TypeError, "holds Python objects"),
            ("no such type", None, TypeError, "no such type"),
            (np.uint8, "ab", TypeError, "integer"),
            (np.uint8, 1.5, TypeError, "integer"),
        ],
    )
    def test_what_does_not_fit(
        self, pool: MemoryPool, dtype: Any, shape: Any, error: type[Exception], message: str
    ) -> None:
        buffer = pool.allocate(10)
        with pytest.raises(error, match=message):
            buffer.array(dtype, shape)
        buffer.release()
        assert live(pool) == 0

    def test_with_too_many_arguments(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(10)
        with pytest.raises(TypeError):
            buffer.array(np.uint8, 1, 2)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="colour"):
            buffer.array(colour=1)  # type: ignore[call-arg]


class TestObject:
    def test_repr_in_every_state(self, pool: MemoryPool) -> None:
        buffer, fallback = pool.allocate(8), pool.allocate(TOO_LARGE)
        assert repr(buffer) == f"<tierpool.Buffer 8 bytes at {buffer.address:#x}, heap 0>"
        assert repr(fallback) == f"<tierpool.Buffer {TOO_LARGE} bytes at {fallback.address:#x}, fallback>"
        view = memoryview(buffer)
        with buffer:
            pass
        assert repr(buffer) == "<tierpool.Buffer released, 8 bytes>"
        del view
        assert repr(buffer) == "<tierpool.Buffer released, 8 bytes>"
        fallback.__dlpack__()
        fallback.release()
        assert repr(fallback) == f"<tierpool.Buffer released, {TOO_LARGE} bytes>"
        pool.close()
        assert repr(buffer) == "<tierpool.Buffer released, 8 bytes>"

    def test_place(self, pool: MemoryPool) -> None:
        kept = [pool.allocate(MIB) for _ in range(4)]
        assert {buffer.heap_index for buffer in kept} == {0, 1}
        assert pool.allocate(TOO_LARGE).heap_index is None

    def test_weak_references(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        seen: list[int] = []
        reference = weakref.ref(buffer, lambda _: seen.append(live(pool)))
        assert reference() is buffer
        del buffer
        assert reference() is None
        assert seen == [1]
        assert live(pool) == 0

    def test_attributes_cannot_be_set(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(8)
        for name in ("nbytes", "address", "released", "something"):
            with pytest.raises(AttributeError):
                setattr(buffer, name, 1)

    def test_no_memory_for_the_object_loses_none_of_the_pools(self, pool: MemoryPool) -> None:
        testcapi = pytest.importorskip("_testcapi", reason="CPython's own test module makes allocations fail")
        batch = pool.allocate_batch([8])
        for fails_at in range(40):  # more than either call needs, so that each of its allocations fails once
            for make in (partial(pool.allocate, 8), partial(batch.__getitem__, 0)):
                testcapi.set_nomemory(fails_at, fails_at + 1)
                try:
                    made = make()
                except MemoryError:
                    made = None
                finally:
                    testcapi.remove_mem_hooks()
                assert made is None or bytes(made) is not None
        del made
        assert batch[0].address == batch.addresses[0]
        assert live(pool) == 1
