"""The pool as Python uses it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tierpool
from tierpool import MemoryPool, OutOfMemoryError, PoolClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import Buffer

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
TOO_LARGE = 17 * MIB  # for the heaps of 16 MB that make_pool builds


def used_mb(pool: MemoryPool) -> float:
    return pool.get_statistics().used_capacity_mb


class TestAllocate:
    def test_gives_writable_memory_of_the_size(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(1000)
        view = memoryview(buffer)
        view[:] = bytes(range(250)) * 4
        assert (buffer.nbytes, view.nbytes, bytes(view[:3])) == (1000, 1000, b"\x00\x01\x02")

    def test_dropping_the_buffer_returns_the_memory(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(MIB)
        assert used_mb(pool) == 1.0
        del buffer
        assert used_mb(pool) == 0.0

    @pytest.mark.parametrize("size", [np.int32(4096), np.uint64(4096), True])
    def test_takes_any_integer(self, pool: MemoryPool, size: Any) -> None:
        assert pool.allocate(size).nbytes == int(size)

    @pytest.mark.parametrize("alignment", [1, 256, 4096, 1 << 16])
    def test_alignment(self, pool: MemoryPool, alignment: int) -> None:
        buffers = [pool.allocate(100, alignment) for _ in range(5)]
        assert all(buffer.address % max(alignment, 256) == 0 for buffer in buffers)

    def test_zero_bytes_is_an_empty_buffer_with_a_place(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(0)
        assert (buffer.nbytes, bytes(buffer), buffer.heap_index) == (0, b"", 0)
        assert buffer.address != 0
        assert pool.get_statistics().active_allocations == 1

    @pytest.mark.parametrize("size", [1.0, "1", None, [1], b"1"])
    def test_sizes_of_other_types(self, pool: MemoryPool, size: Any) -> None:
        for call in (pool.allocate, pool.try_allocate, lambda value: pool.allocate_batch([value])):
            with pytest.raises(TypeError, match="size must be an integer number of bytes"):
                call(size)

    @pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (-(2**70), ValueError), (2**63, OverflowError)])
    def test_sizes_out_of_range(self, pool: MemoryPool, size: int, error: type[Exception]) -> None:
        for call in (pool.allocate, pool.try_allocate, lambda value: pool.allocate_batch([value])):
            with pytest.raises(error, match=str(size)):
                call(size)
        assert pool.allocate(1).heap_index is not None

    @pytest.mark.parametrize("alignment", [0, 3, 100, -256, 1 << 40])
    def test_bad_alignment(self, pool: MemoryPool, alignment: int) -> None:
        for call in (pool.allocate, pool.try_allocate):
            with pytest.raises(ValueError, match=f"alignment .*{alignment}"):
                call(64, alignment)

    @pytest.mark.parametrize("alignment", [1.0, "256"])
    def test_alignment_of_other_types(self, pool: MemoryPool, alignment: Any) -> None:
        with pytest.raises(TypeError, match="alignment"):
            pool.allocate(64, alignment=alignment)

    def test_larger_than_a_heap_falls_back(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(TOO_LARGE)
        assert buffer.heap_index is None
        buffer.array()[-1] = 7
        stats = pool.get_statistics()
        assert (stats.fallback_allocations, stats.exhaustion_events, stats.fallback_used_mb) == (1, 1, 17.0)

    def test_out_of_memory_says_what_it_knows(self, make_pool: MakePool) -> None:
        pool = make_pool(on_exhaustion="raise")
        keep = pool.allocate(12 * MIB)
        with pytest.raises(
            OutOfMemoryError, match=r"requested 5242880 bytes .*largest free block 4MB, free 4MB"
        ) as caught:
            pool.allocate(5 * MIB)
        error = caught.value
        assert (error.requested_bytes, error.largest_free_bytes, error.free_bytes) == (5 * MIB, 4 * MIB, 4 * MIB)
        assert error.fragmentation == 0.0
        del keep
        assert pool.allocate(5 * MIB).heap_index == 0

    def test_beyond_all_memory(self, pool: MemoryPool) -> None:
        with pytest.raises(OutOfMemoryError, match=r"device 'host' has .* free of .*; ask for less"):
            pool.allocate(2**62)
        assert pool.get_statistics().active_allocations == 0

    def test_max_bytes_limits_heaps_and_fallbacks_together(self, make_pool: MakePool) -> None:
        pool = make_pool(max_bytes=20 * MIB)
        keep = [pool.allocate(2 * MIB), pool.allocate(TOO_LARGE)]
        with pytest.raises(OutOfMemoryError, match="19MB of max_bytes 20MB"):
            pool.allocate(2 * MIB)
        assert pool.try_allocate(2 * MIB) is None
        keep.pop()
        assert pool.allocate(2 * MIB).heap_index == 0

    @pytest.mark.parametrize("device", ["host", "simulated"])
    def test_every_device_and_choice(self, make_pool: MakePool, device: str) -> None:
        for strategy in ("round-robin", "best-fit", "least-used", "most-used"):
            for placement in ("good-fit", "best-fit", "first-fit"):
                pool = make_pool(device=device, strategy=strategy, placement=placement, num_heaps=2)
                assert pool.device == device
                buffers = [pool.allocate(size) for size in (1, 5000, 3 * MIB)]
                assert all(buffer.heap_index is not None for buffer in buffers)
                assert f"strategy={strategy}, placement={placement}" in repr(pool)


class TestTryAllocate:
    def test_none_when_no_heap_can(self, pool: MemoryPool) -> None:
        assert pool.try_allocate(TOO_LARGE) is None
        stats = pool.get_statistics()
        assert (stats.exhaustion_events, stats.total_allocations) == (1, 0)

    def test_a_buffer_when_one_can(self, pool: MemoryPool) -> None:
        buffer = pool.try_allocate(100, 4096)
        assert buffer is not None
        assert buffer.address % 4096 == 0


class TestWarmup:
    def test_reports_bytes_and_progress(self, pool: MemoryPool) -> None:
        steps: list[tuple[int, int]] = []
        report = pool.warmup([2, "2MiB"], lambda done, total: steps.append((done, total)))
        assert (report.warm_bytes, report.committed_bytes) == (8 * MIB, 8 * MIB)
        assert report.milliseconds > 0
        assert steps[-1] == (8 * MIB, 8 * MIB)
        stats = pool.get_statistics()
        assert (stats.committed_mb, stats.total_allocations, stats.peak_used_mb) == (8.0, 0, 0.0)

    def test_again_commits_nothing_and_leaves_live_blocks(self, pool: MemoryPool) -> None:
        pool.warmup([2])
        buffer = pool.allocate(100)
        memoryview(buffer)[:] = b"x" * 100
        assert pool.warmup([2]).committed_bytes == 0
        assert bytes(buffer) == b"x" * 100

    def test_default_is_the_configured_list(self, make_pool: MakePool) -> None:
        pool = make_pool(warmup_sizes=[4])
        assert pool.get_statistics().committed_mb == 4.0
        pool.trim()
        assert pool.warmup().committed_bytes == 4 * MIB

    def test_what_progress_raises_is_passed_on(self, pool: MemoryPool) -> None:
        def stop(done: int, total: int) -> None:
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            pool.warmup([2], stop)
        assert pool.warmup([2]).warm_bytes == 4 * MIB

    @pytest.mark.parametrize(
        ("sizes", "error"), [(3, TypeError), ("3MB", TypeError), ([0], ValueError), (["x"], ValueError)]
    )
    def test_bad_sizes(self, pool: MemoryPool, sizes: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="sizes"):
            pool.warmup(sizes)

    def test_a_size_above_the_heap_is_skipped_with_a_warning(self, pool: MemoryPool, log_lines: Any) -> None:
        assert pool.warmup([1, 32]).warm_bytes == 2 * MIB
        assert log_lines() == [("WARNING", "MetalMemoryPool: Warmup size 32MB exceeds heap size 16MB, skipped")]


def test_trim_gives_free_memory_back(pool: MemoryPool) -> None:
    pool.warmup([8])
    keep = pool.allocate(100)
    keep.array()[:] = 5
    given_back = pool.trim()
    assert 12 * MIB <= given_back <= 16 * MIB
    assert pool.get_statistics().committed_mb == 16 - given_back / MIB
    assert keep.array().tolist() == [5] * 100
    again = pool.allocate(12 * MIB)
    assert again.array().sum() == 0


class TestClose:
    def test_refuses_new_work(self, pool: MemoryPool) -> None:
        pool.close()
        pool.close()
        assert pool.closed
        for work in (
            lambda: pool.allocate(1),
            lambda: pool.try_allocate(1),
            lambda: pool.allocate_batch([1]),
            pool.acquire_heap,
            pool.warmup,
        ):
            with pytest.raises(PoolClosedError, match="closed; create a new MemoryPool"):
                work()

    def test_what_still_works(self, pool: MemoryPool) -> None:
        buffer = pool.allocate(MIB)
        view = np.asarray(buffer)
        pool.close()
        view[:] = 1
        assert pool.get_statistics().active_allocations == 1
        del view
        buffer.release()
        assert pool.get_statistics().used_capacity_mb == 0.0
        assert "closed" in repr(pool)

    def test_with_closes_also_after_an_error(self, make_pool: MakePool) -> None:
        with pytest.raises(KeyError), make_pool() as pool:
            raise KeyError
        assert pool.closed

    def test_buffers_outlive_a_dropped_pool(self, make_pool: MakePool) -> None:
        buffer = make_pool().allocate(100)
        gc.collect()
        memoryview(buffer)[:] = b"y" * 100
        assert bytes(buffer) == b"y" * 100


class TestArraysInThePool:
    def test_empty_and_zeros(self, pool: MemoryPool) -> None:
        first = pool.zeros((4, 5), np.int16)
        assert first.shape == (4, 5)
        assert first.dtype == np.int16
        assert first.sum() == 0
        second = pool.empty(10)
        assert second.dtype == np.float64
        assert pool.get_statistics().active_arrays == 2

    def test_numpy_takes_what_is_large_enough(self, pool: MemoryPool) -> None:
        with pool.numpy(min_bytes=100):
            keep = [np.empty(99, np.uint8), np.empty(100, np.uint8)]
        keep.append(np.empty(200, np.uint8))
        assert pool.get_statistics().active_arrays == 1
        with pytest.raises(ValueError, match="min_bytes must not be negative, got -1"):
            pool.numpy(min_bytes=-1)

    def test_threads_do_not_inherit_the_block(self, pool: MemoryPool) -> None:
        made: list[Any] = []
        with pool.numpy():
            thread = threading.Thread(target=lambda: made.append(np.ones(1000)))
            thread.start()
            thread.join()
        inherits = getattr(sys.flags, "thread_inherit_context", 0)
        assert pool.get_statistics().active_arrays == inherits


def test_many_threads(make_pool: MakePool) -> None:
    pool = make_pool(num_heaps=4)

    def work(seed: int) -> None:
        sizes = np.random.default_rng(seed).integers(0, 100_000, 300)
        held: list[Buffer] = []
        for size in sizes.tolist():
            buffer = pool.allocate(size)
            buffer.array()[:] = seed
            held.append(buffer)
            if len(held) > 20:
                assert np.all(held[0].array() == seed)
                del held[0]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    stats = pool.get_statistics()
    assert (stats.total_allocations, stats.active_allocations, stats.used_capacity_mb) == (2400, 0, 0.0)


def test_repr_of_a_pool_that_could_not_be_built() -> None:
    class Kept(MemoryPool):
        def __init__(self) -> None:
            kept.append(self)
            super().__init__(device="nowhere")

    kept: list[MemoryPool] = []
    with pytest.raises(tierpool.ConfigError):
        Kept()
    assert repr(kept[0]) == "<MemoryPool, not built>"


def test_fork_leaves_a_working_child() -> None:
    code = (
        "import os, tierpool\n"
        "pool = tierpool.MemoryPool(heap_size_mb=16, num_heaps=1, warmup_sizes=[])\n"
        "keep = pool.allocate(100)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ok = pool.get_statistics().active_allocations == 1 and pool.allocate(1000).heap_index == 0\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_metal_memory_pool_is_the_same_class() -> None:
    assert tierpool.MetalMemoryPool is MemoryPool
