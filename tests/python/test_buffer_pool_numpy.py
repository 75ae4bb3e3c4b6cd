"""NumPy arrays that are leases of a buffer pool's step."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tierpool import BufferPool, MemoryPool
from tierpool.integrations.numpy import use

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # before NumPy 2
    from numpy.core.multiarray import get_handler_name

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def arena() -> BufferPool:
    """A pool on the host."""
    return BufferPool()


def layer(n: int) -> float:
    x = np.ones((n, n))
    return float((x @ x + x.T).sum())


def test_arrays_are_leases_of_the_step(arena: BufferPool) -> None:
    with arena.step(), arena.numpy():
        array = np.ones(5000)
        assert get_handler_name(array) == "tierpool"
        stats = arena.get_statistics()
        assert (stats.in_use_count, stats.live_requested_bytes, stats.live_views) == (1, 40_000, 1)
        del array
        assert arena.in_use_count == 0
    assert arena.get_statistics().resets == 1


def test_nothing_new_after_the_first_token(arena: BufferPool) -> None:
    results = set()
    for token in range(5):
        with arena.step(), arena.numpy():
            results.add(layer(100))
        if token == 0:
            fresh = arena.get_statistics().fresh
    stats = arena.get_statistics()
    assert stats.fresh == fresh == arena.source.get_statistics().total_allocations
    assert stats.reused > stats.fresh
    assert results == {layer(100)}


def test_an_array_that_escapes_is_named() -> None:
    arena = BufferPool(track_origins=True)
    with pytest.raises(BufferError, match=r"40000 bytes with 1 view, allocated at .*in test_an_array_that_escapes"):  # noqa: SIM117
        with arena.step(), arena.numpy():
            escaped = np.ones(5000)
    assert escaped.sum() == 5000
    arena.alloc(40_000)
    assert escaped.sum() == 5000
    del escaped
    arena.reset()


def test_a_view_keeps_the_array(arena: BufferPool) -> None:
    with arena.numpy():
        view = np.arange(5000.0)[::2]
    with pytest.raises(BufferError, match="live views"):
        arena.reset()
    assert view.sum() == sum(range(0, 5000, 2))
    del view
    arena.reset()


@pytest.mark.parametrize(("min_bytes", "nbytes", "leased"), [(1024, 1023, 0), (1024, 1024, 1), (0, 1, 1), (0, 0, 1)])
def test_threshold(arena: BufferPool, min_bytes: int, nbytes: int, leased: int) -> None:
    with arena.numpy(min_bytes):
        array = np.empty(nbytes, np.uint8)
    assert arena.in_use_count == leased
    del array
    assert arena.in_use_count == 0


@pytest.mark.parametrize("zero", ["never", "fresh", "always", "poison"])
def test_zeros_are_zero(zero: str) -> None:
    arena = BufferPool(zero=zero)
    for _ in range(3):
        with arena.numpy():
            array = np.zeros(5000, np.uint8)
            assert not array.any()
            array[:] = 0xFF
            del array
            other = np.empty(5000, np.uint8)
            other[:] = 0xFF
            del other


def test_resizing_keeps_what_was_there(arena: BufferPool) -> None:
    random = np.random.default_rng(1)
    with arena.numpy():
        array = np.arange(2000, dtype=np.int64)
    known = array.copy()
    for size in [*random.integers(1, 20_000, 100).tolist(), 1, 5000, 2]:
        array.resize(int(size), refcheck=False)
        kept = min(len(known), int(size))
        assert (array[:kept] == known[:kept]).all()
        assert not array[kept:].any()
        known = array.copy()
    stats = arena.get_statistics()
    assert stats.in_use_count <= 1
    del array
    assert arena.in_use_count == 0


def test_arrays_outlive_block_and_pool() -> None:
    arena = BufferPool()
    source = arena.source
    with arena.numpy():
        array = np.ones(5000)
    arena.close()
    del arena
    gc.collect()
    assert array.sum() == 5000
    del array
    gc.collect()
    assert source.get_statistics().active_allocations == 0


def test_a_closed_pool_has_no_memory(arena: BufferPool, log_lines: Callable[[], list[tuple[str, str]]]) -> None:
    scope = arena.numpy()
    arena.close()
    with scope, pytest.raises(MemoryError):
        np.ones(5000)
    arena.reset()
    assert ("ERROR", "BufferPool: NumPy asked a closed buffer pool for memory") in log_lines()


def test_a_limit_is_a_memory_error() -> None:
    arena = BufferPool(max_bytes=10_000)
    with arena.numpy(), pytest.raises(MemoryError):
        np.ones(5000)
    assert arena.get_statistics().held_count == 0


def test_a_device_out_of_reach() -> None:
    with pytest.raises(ValueError, match="which device 'simulated' is not"):
        BufferPool("simulated").numpy()


def test_inside_and_outside_another_pool(arena: BufferPool, pool: MemoryPool) -> None:
    with pool.numpy():
        outer = np.ones(5000)
        with use(arena):
            inner = np.ones(5000)
        after = np.ones(5000)
    assert (pool.get_statistics().active_arrays, arena.in_use_count) == (2, 1)
    del outer, inner, after
    assert (pool.get_statistics().active_arrays, arena.in_use_count) == (0, 0)


def test_arrays_that_die_on_other_threads(arena: BufferPool) -> None:
    def work() -> None:
        with arena.numpy():
            for n in range(1, 300):
                held.append(np.full(200 + n, n))

    held: list[np.ndarray] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arena.in_use_count == len(held)
    assert all((array == array[0]).all() for array in held)
    held.clear()
    assert arena.in_use_count == 0


def test_unchecked_arrays_of_two_steps_at_one_place() -> None:
    """NumPy frees by address: the death of the array of a past step must not end the one that stands there now."""
    arena = BufferPool(checked=False)
    with arena.numpy():
        past = np.ones(5000)
        arena.reset()
        present = np.zeros(5000)
        assert past.ctypes.data == present.ctypes.data
        del past
        assert arena.in_use_count == 1
        other = np.ones(5000)
        assert not present.any()
        del present, other
    arena.reset()
    assert (arena.in_use_count, arena.free_count) == (0, 2)
