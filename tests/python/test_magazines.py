"""Magazines from Python: what a thread frees it uses again, and the statistics add up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pool_bytes import cached, check_at_rest, in_bytes, park, used

from tierpool import MemoryPool, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePool = Callable[..., MemoryPool]

KIB, MIB = 1 << 10, 1 << 20
BLOCK_BYTES = 5120  # of a request for 5000 bytes


@pytest.mark.parametrize("settings", [{}, {"max_bytes": "16MiB"}, {"track_origins": True}], ids=str)
class TestOneThread:
    def test_what_is_dropped_is_used_again(self, make_pool: MakePool, settings: dict[str, Any]) -> None:
        pool = make_pool(**settings)
        first, second = pool.allocate(5000), pool.allocate(5000)
        addresses = first.address, second.address
        del second, first
        assert pool.allocate(5000).address == addresses[0]
        kept = [pool.allocate(5000), pool.allocate(5000)]
        assert tuple(buffer.address for buffer in kept) == addresses
        check_at_rest(pool, 2)

    def test_what_is_parked_is_cached_and_not_used(self, make_pool: MakePool, settings: dict[str, Any]) -> None:
        pool = make_pool(**settings)
        buffer = pool.allocate(5000)
        assert (used(pool), cached(pool)) == (BLOCK_BYTES, 0)
        check_at_rest(pool, 1)
        buffer.release()
        assert (used(pool), cached(pool)) == (0, BLOCK_BYTES)
        check_at_rest(pool, 0)
        buffer = pool.allocate(5000)
        assert (used(pool), cached(pool)) == (BLOCK_BYTES, 0)
        assert in_bytes(pool.get_statistics().peak_used_mb) == BLOCK_BYTES
        check_at_rest(pool, 1)

    def test_a_view_keeps_a_block_from_being_parked(self, make_pool: MakePool, settings: dict[str, Any]) -> None:
        pool = make_pool(**settings)
        view = np.asarray(pool.allocate(5000))
        assert (used(pool), cached(pool)) == (BLOCK_BYTES, 0)
        assert pool.allocate(5000).address != view.ctypes.data
        del view
        check_at_rest(pool, 0)
        assert cached(pool) >= 2 * BLOCK_BYTES  # the second request may have brought more

    def test_a_reused_array_of_zeros_is_zero(self, make_pool: MakePool, settings: dict[str, Any]) -> None:
        pool = make_pool(**settings)
        with pool.numpy():
            np.empty(50_000, np.uint8).fill(0xFF)
            assert cached(pool) > 0
            assert not np.zeros(50_000, np.uint8).any()
            kept = np.ones(50_000, np.uint8)
            assert pool.get_statistics().active_arrays == 1
            kept = np.concatenate([kept, kept])
        assert kept.all()
        del kept
        check_at_rest(pool, 0)

    def test_trim_empties_them(self, make_pool: MakePool, settings: dict[str, Any]) -> None:
        pool = make_pool(**settings)
        kept = [pool.allocate(MIB) for _ in range(4)]
        assert pool.trim() == 0 or sys.platform != "linux"  # the heap's pages are as large as 2 MiB
        kept.clear()
        assert cached(pool) > 0
        pool.trim()
        stats = pool.get_statistics()
        assert (stats.cached_mb, stats.committed_mb, stats.largest_free_mb) == (0, 0, 16)
        check_at_rest(pool, 0)


def test_sizes_of_a_class_share_blocks(pool: MemoryPool) -> None:
    address = pool.allocate(10_000).address
    other = pool.allocate(10_200)
    assert (other.address, other.nbytes, used(pool)) == (address, 10_200, 10_240)
    assert pool.allocate(10_241).address != address


def test_a_large_size_is_parked_once_it_comes_again(make_pool: MakePool) -> None:
    pool, size = make_pool(num_heaps=2, warmup_sizes=[16]), MIB + 700
    pool.allocate(size)
    assert cached(pool) == 0
    address = pool.allocate(size).address
    assert cached(pool) == MIB + 768
    assert pool.allocate(size + 256).address != address
    assert pool.allocate(size).address == address


def test_heaps_are_selected_when_there_is_nothing_to_reuse(make_pool: MakePool) -> None:
    pool = make_pool(num_heaps=2, strategy="round-robin")
    assert len({pool.allocate(5000).heap_index for _ in range(4)}) == 1
    kept = [pool.allocate(5000) for _ in range(4)]
    assert {buffer.heap_index for buffer in kept} == {0, 1}


def test_a_large_alignment_comes_from_a_heap(pool: MemoryPool) -> None:
    for _ in range(3):
        assert pool.allocate(5000, alignment=4096).address % 4096 == 0
    assert cached(pool) == 0


def test_the_limit_is_for_live_bytes(make_pool: MakePool) -> None:
    pool = make_pool(max_bytes="1MiB", on_exhaustion="raise")
    pool.allocate(MIB)
    assert cached(pool) == MIB
    kept = [pool.allocate(MIB // 2), pool.allocate(MIB // 2)]
    with pytest.raises(OutOfMemoryError):
        pool.allocate(1)
    kept.pop()
    kept.append(pool.allocate(MIB // 2))
    check_at_rest(pool, 2)


def test_a_stale_buffer_is_refused_while_its_block_is_parked_and_after(pool: MemoryPool) -> None:
    buffer = pool.allocate(5000)
    buffer.release()
    again = pool.allocate(5000)
    with pytest.raises(ValueError, match="released already"):
        pool.release(buffer)
    again.array()[:] = 1
    check_at_rest(pool, 1)


def test_what_is_reset_starts_from_what_is_parked(pool: MemoryPool) -> None:
    pool.allocate(5000)
    pool.reset_statistics()
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.total_deallocations, stats.active_allocations) == (0, 0, 0)
    kept = pool.allocate(5000)
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.hit_rate, in_bytes(stats.used_capacity_mb)) == (1, 1.0, BLOCK_BYTES)
    kept.release()
    check_at_rest(pool, 0)


class TestBatches:
    def test_a_batch_is_served_from_what_is_parked(self, pool: MemoryPool) -> None:
        sizes = np.array([5000, 70_000, 8, 5000, 300_000], np.int64)
        addresses = {buffer.address for buffer in pool.allocate_batch(sizes)}
        taken = used(pool) + cached(pool)
        batch = pool.allocate_batch(sizes)
        assert {buffer.address for buffer in batch} == addresses
        assert used(pool) + cached(pool) == taken
        check_at_rest(pool, 5)
        batch.release()
        check_at_rest(pool, 0)
        assert pool.get_statistics().total_allocations == 10

    def test_a_batch_that_fails_takes_nothing(self, make_pool: MakePool) -> None:
        pool = make_pool(on_exhaustion="raise")
        pool.allocate_batch([5000] * 20).release()
        before = pool.get_statistics()
        with pytest.raises(OutOfMemoryError):
            pool.allocate_batch([5000] * 10 + [17 * MIB])
        after = pool.get_statistics()
        assert (after.total_allocations, after.total_deallocations) == (20, 20)
        assert after.exhaustion_events == before.exhaustion_events + 1
        check_at_rest(pool, 0)
        pool.allocate(16 * MIB).release()


class TestConfiguration:
    def test_without_magazines_nothing_is_cached(self, make_pool: MakePool) -> None:
        pool = make_pool(num_heaps=2, magazines=False)
        indices = []
        for _ in range(4):
            buffer = pool.allocate(5000)
            indices.append(buffer.heap_index)
            assert cached(pool) == 0
            buffer.release()
            assert cached(pool) == 0
        assert indices == [0, 1, 0, 1]
        pool.allocate_batch([5000] * 10).release()
        with pool.numpy():
            np.ones(5000)
        assert (cached(pool), pool.get_statistics().free_mb) == (0, 32)
        check_at_rest(pool, 0)

    @pytest.mark.parametrize(
        ("exact_above", "block_bytes"),
        [("1MiB", 73_728), (73_728, 73_728), (73_727, 70_144), ("64KiB", 70_144), (0, 70_144)],
    )
    def test_sizes_above_are_exact(self, make_pool: MakePool, exact_above: int | str, block_bytes: int) -> None:
        pool = make_pool(exact_above=exact_above)
        for _ in range(3):
            buffer = pool.allocate(70_000)
            assert used(pool) == block_bytes
            buffer.release()
        assert cached(pool) == block_bytes

    def test_a_thread_parks_no_more_than_it_may(self, make_pool: MakePool) -> None:
        pool = make_pool(magazine_thread_bytes="64KiB")
        park(pool, [8 * KIB] * 100)
        assert 0 < cached(pool) <= 64 * KIB
        check_at_rest(pool, 0)

    def test_a_block_above_half_of_that_is_not_parked(self, make_pool: MakePool) -> None:
        pool = make_pool(magazine_thread_bytes="512KiB")
        park(pool, [264 * KIB] * 3)
        assert cached(pool) == 0
        park(pool, [128 * KIB] * 3)
        assert cached(pool) == 3 * 128 * KIB
        check_at_rest(pool, 0)

    @pytest.mark.parametrize("key", ["magazine_thread_bytes", "magazine_total_bytes"])
    def test_a_cap_of_zero_parks_nothing(self, make_pool: MakePool, key: str) -> None:
        pool = make_pool(**{key: 0})
        park(pool, [5000] * 10)
        assert cached(pool) == 0
        check_at_rest(pool, 0)

    def test_a_whole_pool_may_be_parked_and_taken_again(self, make_pool: MakePool) -> None:
        pool = make_pool(magazine_thread_bytes="16MiB", magazine_total_bytes="16MiB", on_exhaustion="raise")
        for _ in range(3):
            kept = [pool.allocate(MIB) for _ in range(16)]
            assert len({buffer.address for buffer in kept}) == 16
            assert pool.try_allocate(1) is None
            kept.clear()
        assert cached(pool) == 16 * MIB
        pool.allocate(3 * MIB)
        check_at_rest(pool, 0)
