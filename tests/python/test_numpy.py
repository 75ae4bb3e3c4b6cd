"""NumPy arrays in a pool: which memory they get, what is in it, and when it goes back."""

from __future__ import annotations

import gc
import io
import pickle
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # before NumPy 2
    from numpy.core.multiarray import get_handler_name

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds


def arrays(pool: MemoryPool) -> int:
    stats = pool.get_statistics()
    assert stats.active_arrays == stats.active_allocations
    return stats.active_arrays


def source_of(array: np.ndarray[Any, Any]) -> str:
    """Name the allocator of the array that owns the memory."""
    return get_handler_name(array if array.base is None else array.base)


class TestSizes:
    @pytest.mark.parametrize(
        ("options", "nbytes", "in_pool"),
        [
            ({}, 1023, False),
            ({}, 1024, True),
            ({}, TOO_LARGE, True),
            ({"min_bytes": 0}, 0, True),
            ({"min_bytes": 0}, 1, True),
            ({"min_bytes": 1}, 0, True),  # NumPy asks for one byte where none is needed
            ({"min_bytes": 2}, 0, False),
            ({"min_bytes": 5000}, 4999, False),
            ({"min_bytes": 5000}, 5000, True),
        ],
    )
    @pytest.mark.parametrize("create", [np.empty, np.zeros])
    def test_threshold(self, pool: MemoryPool, create: Any, options: Any, nbytes: int, in_pool: bool) -> None:
        with pool.numpy(**options):
            array = create(nbytes, np.uint8)
        assert get_handler_name(array) == "tierpool"
        assert pool.get_statistics().total_allocations == arrays(pool) == in_pool
        array[:] = 7
        assert array.sum() == 7 * nbytes
        del array
        assert arrays(pool) == 0

    @pytest.mark.parametrize(
        ("min_bytes", "error", "message"),
        [
            (-1, ValueError, "min_bytes must not be negative, got -1"),
            (1.0, TypeError, "min_bytes must be an integer number of bytes, got float"),
            ("1KB", TypeError, "min_bytes must be an integer number of bytes, got str"),
            (1 << 64, OverflowError, r"min_bytes must be below 2\*\*63"),
        ],
    )
    def test_a_bad_threshold(self, pool: MemoryPool, min_bytes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            pool.numpy(min_bytes)

    def test_statistics_count_arrays(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(1024)
        with pool.numpy():
            held = [np.empty(1024, np.uint8), np.empty(TOO_LARGE, np.uint8), np.empty(8, np.uint8)]
        stats = pool.get_statistics()
        assert (stats.active_allocations, stats.active_arrays, stats.fallback_allocations) == (3, 2, 1)
        assert (stats.used_capacity_mb, stats.fallback_used_mb) == (2048 / MIB, 17.0)
        del held, buffer
        stats = pool.get_statistics()
        assert (stats.active_allocations, stats.active_arrays, stats.total_deallocations) == (0, 0, 3)
        assert (stats.used_capacity_mb, stats.fallback_used_mb) == (0.0, 0.0)

    def test_results_and_temporaries_are_taken_too(self, pool: MemoryPool) -> None:
        with pool.numpy():
            left = np.arange(10_000.0).reshape(100, 100)
            product = left @ left + left.T
            order = np.argsort(product, axis=None)
        assert [source_of(array) for array in (left, product, order)] == ["tierpool"] * 3
        outside = left @ left + left.T
        assert get_handler_name(outside) != "tierpool"
        assert np.array_equal(product, outside)
        assert np.array_equal(order, np.argsort(outside, axis=None))
        assert arrays(pool) == 3

    def test_alignment(self, pool: MemoryPool) -> None:
        with pool.numpy(min_bytes=0):
            held = [np.empty(nbytes, np.uint8) for nbytes in (0, 1, 100, 5000, TOO_LARGE)]
        assert [array.ctypes.data % 256 for array in held] == [0] * 5


class TestZeros:
    """Recycled memory is dirty; calloc owes zeros all the same."""

    @pytest.mark.parametrize("nbytes", [1024, 100_000, 3 * MIB + 8, 16 * MIB, TOO_LARGE])
    def test_of_recycled_memory(self, make_pool: MakePool, nbytes: int) -> None:
        pool = make_pool()
        for _ in range(3):
            with pool.numpy():
                assert not np.zeros(nbytes, np.uint8).any()
                np.empty(nbytes, np.uint8)[:] = 0xFF

    def test_where_only_the_front_is_recycled(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with pool.numpy():
            np.empty(3 * MIB, np.uint8)[:] = 0xFF
            longer = np.zeros(9 * MIB, np.uint8)
        assert not longer.any()

    def test_after_trim(self, make_pool: MakePool) -> None:
        pool = make_pool(warmup_sizes=[16])
        with pool.numpy():
            np.empty(16 * MIB, np.uint8)[:] = 0xFF
            assert pool.trim() == 16 * MIB
            assert not np.zeros(16 * MIB, np.uint8).any()

    def test_after_buffers(self, make_pool: MakePool) -> None:
        pool = make_pool()
        for nbytes in (2048, MIB, TOO_LARGE):
            pool.allocate(nbytes).array()[:] = 0xFF
            assert not pool.zeros(nbytes, np.uint8).any()

    def test_more_than_can_be_counted(self, pool: MemoryPool) -> None:
        with pool.numpy(), pytest.raises((MemoryError, ValueError)):
            np.zeros((1 << 40, 1 << 40), np.uint8)
        assert arrays(pool) == 0


class TestResize:
    @pytest.mark.parametrize("sizes", [(10, 5000), (1000, TOO_LARGE), (5000, 10), (TOO_LARGE, 1000)])
    def test_across_the_threshold(self, pool: MemoryPool, sizes: tuple[int, int]) -> None:
        before, after = sizes
        with pool.numpy():
            array = np.empty(before, np.uint8)
        array[:] = np.arange(before) % 251
        assert arrays(pool) == (before >= 1024)
        array.resize(after, refcheck=False)
        common = min(before, after)
        assert np.array_equal(array[:common], np.arange(common) % 251)
        assert not array[common:].any()
        assert arrays(pool) == (after >= 1024)
        del array
        assert arrays(pool) == 0

    @pytest.mark.parametrize("min_bytes", [0, 300, 1024])
    def test_at_random(self, pool: MemoryPool, min_bytes: int) -> None:
        choose = random.Random(min_bytes)
        with pool.numpy(min_bytes=min_bytes):
            held = [np.empty(0, np.uint8) for _ in range(8)]
        expected = [b""] * len(held)
        for _ in range(400):
            i = choose.randrange(len(held))
            nbytes = choose.choice([0, 1, 299, 300, 1023, 1024, 1025, 4000, 100_000, MIB])
            held[i].resize(nbytes, refcheck=False)
            assert held[i].tobytes() == expected[i][:nbytes].ljust(nbytes, b"\0")
            held[i][:] = choose.randrange(256)
            expected[i] = held[i].tobytes()
        assert arrays(pool) == sum(max(array.nbytes, 1) >= max(min_bytes, 1) for array in held)
        held.clear()
        stats = pool.get_statistics()
        assert stats.active_allocations == 0
        assert stats.total_allocations == stats.total_deallocations
        assert stats.used_capacity_mb == 0.0

    def test_growth_by_numpy_itself(self, pool: MemoryPool) -> None:
        with pool.numpy():
            iterated = np.fromiter((i for i in range(100_000)), np.int64)
            appended = np.arange(100)
            for i in range(100, 300):
                appended = np.append(appended, i)
            parsed = np.loadtxt(io.StringIO("\n".join(map(str, range(3000)))), dtype=np.int64)
        assert np.array_equal(iterated, np.arange(100_000))
        assert np.array_equal(appended, np.arange(300))
        assert np.array_equal(parsed, np.arange(3000))
        assert arrays(pool) == 3

    def test_in_place_where_the_block_is_large_enough(self, make_pool: MakePool) -> None:
        with make_pool().numpy():
            array = np.ones(4000, np.uint8)
        address = array.ctypes.data
        array.resize(3000, refcheck=False)
        array.resize(4096, refcheck=False)
        assert array.ctypes.data == address
        assert array.sum() == 3000

    def test_what_cannot_grow_keeps_its_contents(self, make_pool: MakePool) -> None:
        pool = make_pool(on_exhaustion="raise")
        with pool.numpy():
            array, small = np.ones(8 * MIB, np.uint8), np.ones(100, np.uint8)
        for one in (array, small):
            before = one.tobytes()
            with pytest.raises(MemoryError):
                one.resize(1 << 60, refcheck=False)
            assert one.tobytes() == before
        assert arrays(pool) == 1

    def test_shrinking_needs_no_memory(self, make_pool: MakePool) -> None:
        pool = make_pool(on_exhaustion="raise")
        with pool.numpy():
            array, rest = np.ones(8 * MIB, np.uint8), np.ones(8 * MIB, np.uint8)
        array.resize(2 * MIB, refcheck=False)
        assert array.all()
        pool.close()
        rest.resize(2000, refcheck=False)
        assert rest.sum() == 2000
        rest.resize(10, refcheck=False)
        assert rest.sum() == 10
        with pytest.raises(MemoryError):
            array.resize(9 * MIB, refcheck=False)
        assert arrays(pool) == 1


class TestLifetime:
    def test_arrays_outlive_block_and_pool(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with pool.numpy():
            held = [np.full(nbytes, 3, np.uint8) for nbytes in (10, 5000, TOO_LARGE)]
        pool.close()
        del pool
        gc.collect()
        for array in held:
            np.add(array, 1, out=array)
            assert (array == 4).all()
        held[0].resize(20, refcheck=False)
        assert held[0].sum() == 40

    def test_views_keep_the_memory(self, pool: MemoryPool) -> None:
        with pool.numpy():
            view = np.ones((100, 100))[10:20, ::3]
        assert get_handler_name(view) is None
        assert get_handler_name(view.base) == "tierpool"
        assert arrays(pool) == 1
        assert view.sum() == 340
        with memoryview(view) as exported:
            del view
            assert arrays(pool) == 1
            assert exported.shape == (10, 34)
        del exported
        assert arrays(pool) == 0

    def test_freed_on_other_threads(self, pool: MemoryPool) -> None:
        with pool.numpy():
            held = [np.ones(nbytes, np.uint8) for nbytes in (10, 5000, TOO_LARGE) for _ in range(20)]
        threads = [threading.Thread(target=lambda: [held.pop() for _ in range(10)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert held == []
        assert arrays(pool) == 0

    def test_pickled_and_loaded(self, pool: MemoryPool) -> None:
        with pool.numpy(min_bytes=0):
            array = np.arange(100.0)  # of more than 1000 bytes NumPy keeps the pickle and copies nothing
            file = io.BytesIO()
            np.save(file, array)
            file.seek(0)
            loaded = np.load(file)
            unpickled = pickle.loads(pickle.dumps(array, protocol=2))
        assert np.array_equal(loaded, array)
        assert np.array_equal(unpickled, array)
        assert [source_of(one) for one in (array, loaded, unpickled)] == ["tierpool"] * 3
        outside = pickle.loads(pickle.dumps(array, protocol=2))
        assert np.array_equal(outside, array)
        assert source_of(outside) != "tierpool"

    def test_object_arrays_release_what_they_hold(self, pool: MemoryPool) -> None:
        class Held:
            count = 0

            def __init__(self) -> None:
                Held.count += 1

            def __del__(self) -> None:
                Held.count -= 1

        with pool.numpy():
            array = np.array([Held() for _ in range(500)], dtype=object)
        assert (Held.count, arrays(pool)) == (500, 1)
        del array
        gc.collect()
        assert (Held.count, arrays(pool)) == (0, 0)

    def test_close_reports_arrays_and_no_leak(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool()
        with pool.numpy():
            held = [np.empty(MIB, np.uint8) for _ in range(3)]
        pool.close()
        assert log_lines() == [
            ("INFO", "MetalMemoryPool: Closed with 3 live arrays of 3MB; each keeps its memory until it goes")
        ]
        held.clear()
        assert arrays(pool) == 0
        assert log_lines() == []
