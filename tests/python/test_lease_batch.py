"""Batches of leases: many in one call, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tierpool import BufferPool, Lease, LeaseBatch, OutOfMemoryError, PoolClosedError, StaleBufferError


@pytest.fixture
def arena() -> BufferPool:
    """A pool on the host."""
    return BufferPool()


class TestRequests:
    @pytest.mark.parametrize(
        "requests",
        [
            [10, 0, 300],
            (10, 0, 300),
            iter([10, 0, 300]),
            np.array([10, 0, 300]),
            np.array([10, 0, 300], np.uint16),
            [np.int32(10), (0,), (300, None, None)],
        ],
    )
    def test_sizes(self, arena: BufferPool, requests: Any) -> None:
        batch = arena.alloc_batch(requests)
        assert [lease.nbytes for lease in batch] == batch.nbytes.tolist() == [10, 0, 300]
        assert all(lease.dtype == np.uint8 for lease in batch)
        assert arena.in_use_count == 3

    def test_dtypes_and_shapes(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8, (8, "f4"), (24, np.float64, (3, 1)), (16, None, (4, 4))])
        assert [(lease.dtype, lease.shape) for lease in batch] == [
            (np.uint8, (8,)),
            (np.float32, (2,)),
            (np.float64, (3, 1)),
            (np.uint8, (4, 4)),
        ]

    @pytest.mark.parametrize(
        ("requests", "error", "message"),
        [
            ([8, -1], ValueError, "nbytes must not be negative, got -1"),
            ([8, 1 << 63], OverflowError, "nbytes must be below"),
            ([8, "8"], TypeError, "nbytes must be an integer number of bytes, got str"),
            ([8, ()], TypeError, r"a request is nbytes or a tuple \(nbytes, dtype, shape\), got a tuple of 0"),
            ([8, (8, "u1", 8, 8)], TypeError, "got a tuple of 4"),
            ([8, (9, "f4")], ValueError, "no whole number of float32 items"),
            ([8, (8, "f4", (3,))], ValueError, "needs 12 bytes, but nbytes is 8"),
            (np.array([8, -1]), ValueError, "size must not be negative, got -1"),
            (np.array([8.0]), TypeError, "array of integers"),
            (np.array([[8]]), ValueError, "one dimension"),
            (8, TypeError, "not iterable"),
            (None, TypeError, "not iterable"),
        ],
    )
    def test_bad_requests_change_nothing(
        self, arena: BufferPool, requests: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            arena.alloc_batch(requests)
        assert arena.get_statistics().held_count == 0

    def test_all_or_none(self) -> None:
        arena = BufferPool(max_buffers=3)
        held = arena.alloc(100)
        for attempt in ([100] * 3, [(100, "u1")] * 3):
            with pytest.raises(OutOfMemoryError, match=r"300 bytes .* in 3 buffers, which would exceed max_buffers 3"):
                arena.alloc_batch(attempt)
            assert (arena.in_use_count, arena.get_statistics().held_count) == (1, 1)
        assert held.live
        assert len(arena.alloc_batch([100] * 2)) == 2

    def test_of_a_closed_pool(self, arena: BufferPool) -> None:
        arena.close()
        with pytest.raises(PoolClosedError, match="the buffer pool is closed"):
            arena.alloc_batch([1, 2])


class TestSequence:
    def test_items(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 3)
        assert isinstance(batch, Sequence)
        assert all(isinstance(lease, Lease) for lease in batch)
        assert batch[1] is batch[1]
        assert batch[-1] is batch[2]
        assert batch[0:2] == [batch[0], batch[1]]
        assert list(reversed(batch)) == batch[::-1] == [batch[2], batch[1], batch[0]]
        assert batch.index(batch[2]) == 2
        assert batch[1] in batch
        assert arena.alloc(8) not in batch

    def test_index_out_of_range(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 3)
        with pytest.raises(IndexError, match="index 3 is out of range for a batch of 3 leases"):
            batch[3]

    def test_addresses(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 3)
        assert batch.addresses.tolist() == [lease.address for lease in batch]
        assert len(set(batch.addresses.tolist())) == 3

    def test_repr(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 3)
        assert repr(batch) == "<tierpool.LeaseBatch of 3 leases>"
        batch.release()
        assert repr(batch) == "<tierpool.LeaseBatch of 3 leases, released>"


class TestEnd:
    def test_dropping_ends_what_was_not_asked_for(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 4)
        kept = batch[2]
        del batch
        assert arena.in_use_count == 1
        assert kept.live
        del kept
        assert arena.in_use_count == 0

    def test_the_next_batch_gets_the_same_memory(self, arena: BufferPool) -> None:
        sizes = np.arange(1, 5000, 37)
        addresses = arena.alloc_batch(sizes).addresses.tolist()
        assert arena.alloc_batch(sizes).addresses.tolist() == addresses
        batch = arena.alloc_batch(sizes)
        arena.reset()
        assert arena.alloc_batch(sizes).addresses.tolist() == addresses
        del batch
        assert arena.get_statistics().fresh == len(sizes)

    def test_a_reset_ends_all(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 3)
        made = batch[0]
        arena.reset()
        successors = arena.alloc_batch([8] * 3)
        assert batch[0] is made
        for use in (
            lambda all_: all_[1],
            lambda all_: all_.addresses,
            LeaseBatch.release,
            lambda all_: all_[0].array(),
        ):
            with pytest.raises(StaleBufferError, match="the pool was reset"):
                use(batch)
        del batch, made
        assert arena.in_use_count == 3
        assert successors[0].live

    def test_release(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8] * 4)
        items = batch[:3]
        items[1].release()
        batch.release()
        assert arena.in_use_count == 0
        assert not any(lease.live for lease in items)
        for use in (batch.release, lambda: batch[0], lambda: batch.addresses):
            with pytest.raises(StaleBufferError, match="stale batch of 4 leases: it was released"):
                use()

    def test_release_under_a_view_changes_nothing(self, arena: BufferPool) -> None:
        batch = arena.alloc_batch([8, (8, "f4"), 8])
        view = np.asarray(batch[1])
        with pytest.raises(BufferError, match=r"cannot release the lease of float32 \(2,\): it has live views"):
            batch.release()
        assert arena.in_use_count == 3
        assert batch[1].live
        del view
        batch.release()
        assert arena.in_use_count == 0

    def test_release_under_a_view_that_is_cut_off(self) -> None:
        arena = BufferPool(checked=False)
        batch = arena.alloc_batch([8] * 3)
        view = batch[1].array()
        batch.release()
        assert arena.in_use_count == 0
        del view, batch
        assert arena.free_count == 3

    def test_origins(self) -> None:
        arena = BufferPool(track_origins=True)
        view = arena.alloc_batch([8] * 3)[1].array()
        with pytest.raises(BufferError, match=r"allocated at .*test_lease_batch.py:\d+ in test_origins"):
            arena.reset()
        del view
