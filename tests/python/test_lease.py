"""What a lease shows, in every way it can be seen."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from tierpool import BufferPool, Lease

PYBUF_F_CONTIGUOUS = 0x40 | 0x10 | 0x08


@pytest.fixture
def arena() -> BufferPool:
    """A pool on the host."""
    return BufferPool()


def views(arena: BufferPool) -> int:
    return arena.get_statistics().live_views


def _request_fortran(lease: Lease) -> None:
    layout = (ctypes.c_byte * 256)()  # more than a Py_buffer
    get = ctypes.pythonapi.PyObject_GetBuffer
    get.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    get(lease, ctypes.addressof(layout), PYBUF_F_CONTIGUOUS)


class TestLayout:
    @pytest.mark.parametrize("dtype", ["u1", "i2", "<f2", "f4", "f8", "c16", "?", ">i4", "S5", "U3", "M8[ns]"])
    def test_every_way_shows_dtype_and_shape(self, arena: BufferPool, dtype: str) -> None:
        expected = np.dtype(dtype)
        lease = arena.alloc(6 * expected.itemsize, dtype, (2, 3))
        assert (lease.dtype, lease.shape, lease.nbytes) == (expected, (2, 3), 6 * expected.itemsize)
        for array in (lease.array(), np.asarray(lease)):
            assert (array.dtype, array.shape) == (expected, (2, 3))
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.ctypes.data == lease.address

    @pytest.mark.parametrize(
        ("arguments", "dtype", "shape"),
        [
            ((12,), "u1", (12,)),
            ((0,), "u1", (0,)),
            ((12, None), "u1", (12,)),
            ((12, np.int32), "i4", (3,)),
            ((12, "f4", None), "f4", (3,)),
            ((12, float, (0,)), None, None),
            ((8, float), "f8", (1,)),
            ((8, np.float64, ()), "f8", ()),
            ((12, "f4", 3), "f4", (3,)),
            ((12, "f4", [3, 1]), "f4", (3, 1)),
            ((12, "f4", np.array([1, 3])), "f4", (1, 3)),
            ((0, "f4", (0, 5)), "f4", (0, 5)),
            ((12, np.dtype([("a", "i4"), ("b", "f8")]), (1,)), [("a", "i4"), ("b", "f8")], (1,)),
        ],
    )
    def test_arguments(self, arena: BufferPool, arguments: tuple[Any, ...], dtype: Any, shape: Any) -> None:
        if shape is None:
            with pytest.raises(ValueError, match="needs 0 bytes, but nbytes is 12"):
                arena.alloc(*arguments)
            return
        lease = arena.alloc(*arguments)
        assert (lease.dtype, lease.shape) == (np.dtype(dtype), shape)
        assert lease.array().shape == np.asarray(lease).shape == shape

    def test_keywords(self, arena: BufferPool) -> None:
        lease = arena.alloc(shape=(4, 2), dtype="f4", nbytes=32)
        assert (lease.dtype, lease.shape) == (np.float32, (4, 2))

    @pytest.mark.parametrize("call", ["alloc", "alloc_exact"])
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((-1,), ValueError, "nbytes must not be negative, got -1"),
            ((1 << 63,), OverflowError, "nbytes must be below 2"),
            ((1.0,), TypeError, "nbytes must be an integer number of bytes, got float"),
            (("8",), TypeError, "nbytes must be an integer number of bytes, got str"),
            ((), TypeError, "missing required argument 'nbytes'"),
            ((1, "u1", 1, 1), TypeError, "takes at most 3 arguments"),
            ((12, "f8"), ValueError, "nbytes is 12, which is no whole number of float64 items of 8 bytes"),
            ((12, "f4", (2, 2)), ValueError, r"shape \(2, 2\) of float32 needs 16 bytes, but nbytes is 12; ask for 16"),
            ((12, "f4", (-3,)), ValueError, r"shape \(-3,\) must not be negative"),
            ((12, "f4", (-(1 << 70),)), ValueError, "must not be negative"),
            ((12, "f4", (1 << 40, 1 << 40)), ValueError, r"of float32 needs 2\*\*63 bytes or more"),
            ((0, "f4", (1 << 40, 1 << 40, 0)), ValueError, r"of float32 needs 2\*\*63 bytes or more"),
            ((12, "f4", (1 << 80,)), ValueError, r"of float32 needs 2\*\*63 bytes or more"),
            ((1, "u1", (1,) * 33), ValueError, "has more than 32 axes"),
            ((12, "f4", "3"), TypeError, "shape must be an integer or a sequence of integers, got '3'"),
            ((12, "f4", (3.0,)), TypeError, r"shape must be an integer or a sequence of integers, got \(3.0,\)"),
            ((12, "f4", 3.0), TypeError, "shape must be an integer or a sequence of integers"),
            ((8, object), TypeError, "dtype object holds Python objects"),
            ((8, "S"), ValueError, "dtype .S0 has no size"),
            ((24, "(2,3)f4"), ValueError, "has a shape of its own"),
            ((8, "no such type"), TypeError, "no such type"),
        ],
    )
    def test_bad_arguments_change_nothing(
        self, arena: BufferPool, call: str, arguments: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            getattr(arena, call)(*arguments)
        assert arena.get_statistics().held_count == 0

    def test_unknown_keywords(self, arena: BufferPool) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
            arena.alloc(size=3)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="multiple values for argument 'nbytes'"):
            arena.alloc(3, nbytes=3)  # type: ignore[misc]

    def test_many_dtypes_in_turn(self, arena: BufferPool) -> None:
        for width in [*range(1, 60), *range(1, 60)]:
            assert arena.alloc(3 * width, f"S{width}").dtype == np.dtype(f"S{width}")

    def test_a_class_whose_dtype_changes(self, arena: BufferPool) -> None:
        class Chosen:
            dtype = np.dtype("i4")

        assert arena.alloc(8, Chosen).dtype == np.int32
        Chosen.dtype = np.dtype("f8")
        assert arena.alloc(8, Chosen).dtype == np.float64


class TestViews:
    def test_all_see_the_same_bytes(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        lease.array()[:] = [[0, 1, 2], [3, 4, 5]]
        assert np.asarray(lease).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert memoryview(lease).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert np.from_dlpack(lease).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert bytes(lease) == np.arange(6, dtype="f4").tobytes()

    def test_memoryview(self, arena: BufferPool) -> None:
        view = memoryview(arena.alloc(24, "f4", (2, 3)))
        assert (view.format, view.itemsize, view.shape, view.strides) == ("f", 4, (2, 3), (12, 4))
        assert (view.nbytes, view.readonly, view.c_contiguous, view.f_contiguous) == (24, False, True, False)
        assert memoryview(arena.alloc(5)).format == "B"

    def test_simple_consumers(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        lease.array()[:] = 1
        assert b"".join([lease]) == np.ones(6, "f4").tobytes()
        assert views(arena) == 0

    @pytest.mark.parametrize("dtype", [None, "u1", "i2", np.float16])
    def test_another_dtype(self, arena: BufferPool, dtype: Any) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        array = lease.array(dtype, (3, 2) if dtype is None else None)
        expected = np.dtype("f4" if dtype is None else dtype)
        assert (array.dtype, array.nbytes, array.ctypes.data) == (expected, 24, lease.address)
        assert views(arena) == 1
        with pytest.raises(ValueError, match="a larger buffer"):
            lease.array("f8", (4,))
        with pytest.raises(TypeError, match="holds Python objects"):
            lease.array(object)
        del array
        assert views(arena) == 0

    @pytest.mark.parametrize(
        "take",
        [
            memoryview,
            np.asarray,
            np.from_dlpack,
            lambda lease: lease.array(),
            lambda lease: lease.array("u1"),
            lambda lease: lease.array()[1:].reshape(-1)[::2],
            lambda lease: lease.__dlpack__(),
            lambda lease: lease.__dlpack__(max_version=(1, 0)),
        ],
    )
    def test_each_counts_until_it_is_gone(self, arena: BufferPool, take: Any) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        view = take(lease)
        assert views(arena) == 1
        for end in (lambda _: arena.reset(), Lease.release, arena.release):
            with pytest.raises(BufferError, match=r"float32 \(2, 3\)"):
                end(lease)
            assert lease.live
        del lease
        assert (views(arena), arena.in_use_count) == (1, 1)  # the view keeps it
        with pytest.raises(BufferError, match="live views"):
            arena.reset()
        del view
        assert (views(arena), arena.in_use_count) == (0, 0)

    def test_the_array_interface_counts_until_the_lease_is_gone(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        for _ in range(2):
            interface = lease.__array_interface__
        assert interface["data"] == (lease.address, False)
        assert (interface["shape"], interface["typestr"], interface["version"]) == ((2, 3), "<f4", 3)
        assert views(arena) == 1
        with pytest.raises(BufferError, match="live views"):
            lease.release()
        del lease
        assert (views(arena), arena.in_use_count) == (0, 0)

    def test_a_reset_names_what_is_viewed(self) -> None:
        arena = BufferPool(track_origins=True)
        held = [arena.alloc(24, "f4", (2, 3)), arena.alloc(7)]
        kept = [np.asarray(held[0]), memoryview(held[0]), held[1].array()]
        exported = np.from_dlpack(arena.alloc(64, "i8"))
        with pytest.raises(BufferError) as caught:
            arena.reset()
        text = str(caught.value)
        assert "float32 (2, 3) with 2 views, allocated at " in text
        assert "uint8 (7,) with 1 view, allocated at " in text
        assert "64 bytes with 1 view, allocated at " in text
        assert text.count(f"{__file__}:") == 3
        assert text.count("in test_a_reset_names_what_is_viewed") == 3
        del kept, exported
        arena.reset()

    def test_a_reset_names_only_some_of_many(self, arena: BufferPool) -> None:
        kept = [arena.alloc(n).array() for n in range(1, 21)]
        with pytest.raises(BufferError, match="and 12 more"):
            arena.reset()
        del kept

    def test_fortran_order_is_refused(self, arena: BufferPool) -> None:
        lease = arena.alloc(24, "f4", (2, 3))
        with pytest.raises(BufferError, match="C order"):
            _request_fortran(lease)
        assert views(arena) == 0

    def test_dlpack_without_a_name(self, arena: BufferPool) -> None:
        lease = arena.alloc(16, "M8[ns]")
        with pytest.raises(BufferError, match=r"DLPack has no name for dtype datetime64\[ns\]"):
            np.from_dlpack(lease)
        assert views(arena) == 0

    @pytest.mark.parametrize("dtype", ["i1", "u2", "f2", "f8", "c8", "?"])
    def test_dlpack_types(self, arena: BufferPool, dtype: str) -> None:
        if dtype == "c8" and np.lib.NumpyVersion(np.__version__) < "1.25.0":
            pytest.skip("this NumPy imports no complex numbers")
        imported = np.from_dlpack(arena.alloc(16, dtype))
        assert imported.dtype == np.dtype(dtype)

    def test_empty_and_zero_dimensional(self, arena: BufferPool) -> None:
        for lease in (arena.alloc(0), arena.alloc(0, "f4", (3, 0)), arena.alloc(4, "f4", ())):
            assert np.from_dlpack(lease).shape == lease.array().shape == memoryview(lease).shape == lease.shape

    def test_a_device_out_of_reach(self) -> None:
        arena = BufferPool("simulated")
        lease = arena.alloc(24, "f4", (2, 3))
        for look in (memoryview, np.asarray, np.from_dlpack, Lease.array, Lease.__dlpack_device__):
            with pytest.raises(BufferError, match="cannot reach the memory of device 'simulated'"):
                look(lease)
        arena.reset()
