"""Batches: many buffers in one call, all or none."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import Buffer, BufferBatch, MemoryPool, OutOfMemoryError, PoolClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds


def live(pool: MemoryPool) -> int:
    return pool.get_statistics().active_allocations


class TestSequence:
    def test_items(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([10, 0, 300, TOO_LARGE])
        assert len(batch) == 4
        assert isinstance(batch, Sequence)
        assert all(isinstance(buffer, Buffer) for buffer in batch)
        assert [buffer.nbytes for buffer in batch] == [10, 0, 300, TOO_LARGE]
        assert [buffer.heap_index is None for buffer in batch] == [False, False, False, True]
        memoryview(batch[0])[:] = b"0123456789"
        assert bytes(batch[0]) == b"0123456789"

    def test_an_item_is_one_object(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8] * 3)
        assert batch[1] is batch[1]
        assert batch[-1] is batch[2]
        assert batch[np.int64(0)] is batch[0]
        assert list(batch)[1] is batch[1]
        assert batch[0:2][1] is batch[1]

    def test_slices_are_lists(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch(range(1, 6))
        for part in (
            slice(None),
            slice(1, 3),
            slice(None, None, 2),
            slice(None, None, -1),
            slice(-2, 100),
            slice(9, 9),
        ):
            found = batch[part]
            assert isinstance(found, list)
            assert [buffer.nbytes for buffer in found] == list(range(1, 6))[part]

    def test_what_a_sequence_can(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8] * 3)
        assert batch[1] in batch
        assert pool.allocate(8) not in batch
        assert batch.index(batch[2]) == 2
        assert batch.count(batch[2]) == 1
        assert list(reversed(batch)) == [batch[2], batch[1], batch[0]]
        first, *rest = batch
        assert (first, rest) == (batch[0], [batch[1], batch[2]])

    @pytest.mark.parametrize("index", [3, -4, 1 << 40, -(1 << 40)])
    def test_index_out_of_range(self, pool: MemoryPool, index: int) -> None:
        batch = pool.allocate_batch([8] * 3)
        with pytest.raises(IndexError, match=f"index {index} is out of range for a batch of 3 buffers"):
            batch[index]

    @pytest.mark.parametrize("index", [1.0, "0", None, (0, 1)])
    def test_index_of_other_types(self, pool: MemoryPool, index: Any) -> None:
        batch = pool.allocate_batch([8] * 3)
        with pytest.raises(TypeError, match=r"batch indices must be integers or slices, not \w+"):
            batch[index]
        with pytest.raises(IndexError, match="cannot fit 'int'"):
            batch[1 << 70]
        with pytest.raises(ValueError, match="step cannot be zero"):
            batch[::0]

    def test_addresses_and_sizes(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([10, 0, TOO_LARGE])
        assert batch.addresses.dtype == np.uint64
        assert batch.nbytes.dtype == np.int64
        assert batch.addresses.tolist() == [buffer.address for buffer in batch]
        assert batch.nbytes.tolist() == [10, 0, TOO_LARGE]
        batch.nbytes[:] = 0  # of a copy
        assert batch.nbytes[0] == 10

    def test_on_a_device_out_of_reach(self, make_pool: MakePool) -> None:
        batch = make_pool(device="simulated").allocate_batch([8, 8])
        assert np.diff(batch.addresses).tolist() == [256]
        batch.release()

    def test_not_made_by_users(self) -> None:
        with pytest.raises(TypeError, match="No constructor"):
            BufferBatch()
        empty: BufferBatch = BufferBatch.__new__(BufferBatch)
        for use in (len, list, lambda batch: batch[0], lambda batch: batch[:]):
            with pytest.raises(RuntimeError, match=r"holds nothing: MemoryPool\.allocate_batch\(\) makes batches"):
                use(empty)  # type: ignore[operator]

    def test_items_are_made_one_by_one(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8] * 5)
        items = iter(batch)
        first = next(items)
        first.release()
        assert live(pool) == 4
        batch.release()
        with pytest.raises(ValueError, match="batch of 5 buffers was released already"):
            next(items)
        assert live(pool) == 0

    def test_an_iterator_keeps_its_batch(self, pool: MemoryPool) -> None:
        items = iter(pool.allocate_batch([8, 8]))
        gc.collect()
        assert live(pool) == 2
        assert sum(buffer.nbytes for buffer in items) == 16
        del items
        assert live(pool) == 0

    def test_repr(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8, 8])
        assert repr(batch) == "<tierpool.BufferBatch of 2 buffers>"
        batch.release()
        assert repr(batch) == "<tierpool.BufferBatch of 2 buffers, released>"


class TestSizes:
    @pytest.mark.parametrize(
        "sizes",
        [
            [1, 2, 3],
            (1, 2, 3),
            range(1, 4),
            (size for size in (1, 2, 3)),
            {1: "a", 2: "b", 3: "c"},
            [np.int8(1), np.uint64(2), 3],
            np.array([1, 2, 3], np.int8),
            np.array([1, 2, 3], np.int32),
            np.array([1, 2, 3], np.uint64),
            np.array([1, 2, 3], ">i4"),
            np.array([1, 0, 2, 0, 3, 0])[::2],
        ],
        ids=["list", "tuple", "range", "generator", "dict", "scalars", "i1", "i4", "u8", "swapped", "strided"],
    )
    def test_of_many_kinds(self, pool: MemoryPool, sizes: Any) -> None:
        assert pool.allocate_batch(sizes).nbytes.tolist() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("sizes", "error", "message"),
        [
            (np.array([1.0, 2.0]), TypeError, "must be an array of integers, got dtype float64"),
            (np.array([True]), TypeError, "got dtype bool"),
            (np.array(["1"]), TypeError, "got dtype <U1"),
            (np.array([[1, 2], [3, 4]]), ValueError, r"one dimension, got 2; pass sizes\.ravel\(\)"),
            (np.array(1), ValueError, "one dimension, got 0"),
            (3, TypeError, "not iterable"),
            (None, TypeError, "not iterable"),
            ([1, 2.0], TypeError, "size must be an integer number of bytes, got float"),
            ("12", TypeError, "got str"),
            ([1, -2], ValueError, "size must not be negative, got -2"),
            (np.array([1, -2]), ValueError, "size must not be negative, got -2"),
            ([1 << 63], OverflowError, r"below 2\*\*63 bytes, got 9223372036854775808"),
            (np.array([1 << 63], np.uint64), OverflowError, r"below 2\*\*63 bytes, got 9223372036854775808"),
        ],
    )
    def test_refused(self, pool: MemoryPool, sizes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            pool.allocate_batch(sizes)
        assert pool.get_statistics().total_allocations == live(pool) == 0

    def test_what_the_callers_iterable_raises_is_passed_on(self, pool: MemoryPool) -> None:
        def sizes() -> Any:
            yield 8
            raise KeyError("no more")

        with pytest.raises(KeyError, match="no more"):
            pool.allocate_batch(sizes())
        assert live(pool) == 0

    @pytest.mark.parametrize("sizes", [[], (), np.array([], np.int64)], ids=["list", "tuple", "array"])
    def test_none(self, pool: MemoryPool, sizes: Any) -> None:
        batch = pool.allocate_batch(sizes)
        assert (len(batch), list(batch), batch[:]) == (0, [], [])
        assert batch.addresses.shape == batch.nbytes.shape == (0,)
        batch.release()
        assert pool.get_statistics().total_allocations == 0

    def test_a_whole_heap_of_blocks(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch(np.full(20_000, 1))
        assert len(np.unique(batch.addresses)) == 20_000
        assert pool.get_statistics().total_allocations == live(pool) == 20_000
        batch.release()
        assert live(pool) == 0


class TestAllOrNothing:
    @pytest.mark.parametrize("sizes", [[MIB] * 17, [8, 8, TOO_LARGE], [8, (1 << 63) - 1]])
    def test_a_failed_batch_counts_as_exhaustion_only(self, make_pool: MakePool, sizes: list[int]) -> None:
        pool = make_pool(on_exhaustion="raise")
        with pytest.raises(OutOfMemoryError) as caught:
            pool.allocate_batch(sizes)
        assert caught.value.requested_bytes == sizes[-1]
        stats = pool.get_statistics()
        assert (stats.total_allocations, stats.total_deallocations, stats.active_allocations) == (0, 0, 0)
        assert (stats.used_capacity_mb, stats.peak_used_mb, stats.largest_allocation_mb) == (0.0, 0.0, 0.0)
        assert stats.exhaustion_events == 1
        assert stats.fragmentation == 0.0
        assert len(pool.allocate_batch([MIB] * 16)) == 16

    def test_max_bytes(self, make_pool: MakePool) -> None:
        pool = make_pool(max_bytes=2 * MIB)
        with pytest.raises(OutOfMemoryError, match="max_bytes"):
            pool.allocate_batch([MIB, MIB, 1])
        assert len(pool.allocate_batch([MIB, MIB])) == 2

    def test_closed(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8])
        pool.close()
        with pytest.raises(PoolClosedError, match="8 bytes: the pool is closed; create a new MemoryPool"):
            pool.allocate_batch([8])
        batch.release()
        assert live(pool) == 0


class TestRelease:
    def test_gives_all_back_once(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([MIB, MIB, TOO_LARGE])
        seen = batch[1]
        batch.release()
        assert live(pool) == 0
        assert seen.released
        assert batch.nbytes.tolist() == [MIB, MIB, TOO_LARGE]
        assert pool.get_statistics().total_deallocations == 3
        for use in (batch.release, lambda: batch[0], lambda: batch[:], lambda: batch.addresses, lambda: list(batch)):
            with pytest.raises(ValueError, match="batch of 3 buffers was released already; allocate a new one"):
                use()

    def test_is_refused_as_a_whole_while_an_item_is_seen(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8, 8, 8])
        for see in (memoryview, np.asarray, np.from_dlpack, lambda buffer: buffer.__dlpack__(max_version=(1, 0))):
            view = see(batch[1])
            with pytest.raises(BufferError, match="cannot release the buffer of 8 bytes"):
                batch.release()
            assert live(pool) == 3
            assert not batch[0].released
            del view
        batch.release()
        assert live(pool) == 0

    def test_after_items_were_released(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8, 8, 8])
        batch[0].release()
        pool.release(batch[1])
        assert live(pool) == 1
        assert batch[0].released
        batch.release()
        assert live(pool) == 0

    def test_leaves_a_given_up_item_to_its_view(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8, 8])
        with batch[0] as item:
            view = memoryview(item)
        batch.release()
        assert live(pool) == 1
        view[:] = b"still ok"
        view.release()
        assert live(pool) == 0

    def test_from_a_callback_of_its_own_end(self, pool: MemoryPool) -> None:
        import weakref

        batch = pool.allocate_batch([8, 8])
        errors: list[Exception] = []

        def look(_: object) -> None:
            try:
                batch[1]
            except ValueError as error:
                errors.append(error)

        reference = weakref.ref(batch[0], look)
        batch.release()
        assert reference() is None
        assert len(errors) == 1
        assert live(pool) == 0


class TestEnd:
    def test_dropped_whole(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([8, TOO_LARGE])
        assert live(pool) == 2
        del batch
        assert live(pool) == 0

    def test_an_item_outlives_its_batch(self, pool: MemoryPool) -> None:
        batch = pool.allocate_batch([MIB] * 3)
        item, view = batch[0], memoryview(batch[2])
        del batch
        gc.collect()
        assert live(pool) == 2
        memoryview(item)[:4] = view[:4] = b"abcd"
        assert bytes(item)[:4] == bytes(view[:4])
        del item
        assert live(pool) == 1
        view.release()
        del view
        assert live(pool) == 0

    def test_a_batch_keeps_its_pool(self, make_pool: MakePool) -> None:
        batch = make_pool().allocate_batch([8, 8])
        gc.collect()
        np.asarray(batch[1])[:] = 3
        assert bytes(batch[1]) == b"\3" * 8

    def test_reported_as_leaks_with_their_origin(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(track_origins=True)
        batch = pool.allocate_batch([8, 8])
        pool.close()
        assert [text for _, text in log_lines() if "test_batch.py" in text and "test_reported_as_leaks" in text] != []
        assert len(batch) == 2
