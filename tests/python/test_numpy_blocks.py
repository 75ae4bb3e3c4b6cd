"""`with pool.numpy():` blocks: which code they reach, how they end, and what they say when memory runs out."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tierpool import MemoryPool
from tierpool.integrations.numpy import use

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # before NumPy 2
    from numpy.core.multiarray import get_handler_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePool = Callable[..., MemoryPool]

MIB = 1 << 20
DEFAULT = "default_allocator"
TOO_MUCH = 1 << 60  # for any device


@pytest.fixture(autouse=True)
def _leaves_numpy_as_it_was() -> Iterator[None]:
    yield
    assert get_handler_name() == DEFAULT


def taker(*pools: MemoryPool) -> int | None:
    """Return the index of the pool that new arrays live in."""
    before = [pool.get_statistics().active_arrays for pool in pools]
    array = np.empty(5000, np.uint8)
    after = [pool.get_statistics().active_arrays for pool in pools]
    del array
    grown = [index for index in range(len(pools)) if after[index] != before[index]]
    return grown[0] if grown else None


def in_thread(call: Callable[[], object]) -> Any:
    """Return what `call` returns, or raise what it raises, on a new thread."""
    results: list[object] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class TestNesting:
    def test_two_pools(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        found = [taker(one, other)]
        with one.numpy():
            found.append(taker(one, other))
            with other.numpy():
                found.append(taker(one, other))
                with one.numpy():
                    found.append(taker(one, other))
                found.append(taker(one, other))
            found.append(taker(one, other))
        found.append(taker(one, other))
        assert found == [None, 0, 1, 0, 1, 0, None]

    def test_one_block_entered_again(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        block = one.numpy()
        found = []
        with block, other.numpy():
            with block:
                found.append(taker(one, other))
            found.append(taker(one, other))
        with block:
            found.append(taker(one, other))
        assert found == [0, 1, 0]

    def test_an_array_goes_back_where_it_came_from(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        with one.numpy():
            array = np.ones(5000, np.uint8)
            with other.numpy():
                array.resize(MIB, refcheck=False)
                assert (one.get_statistics().used_capacity_mb, other.get_statistics().used_capacity_mb) == (1.0, 0.0)
                del array
        assert one.get_statistics().active_arrays == 0

    def test_empty_and_zeros_leave_an_open_block_alone(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        with one.numpy():
            held = other.empty(10), other.zeros(10)
            assert other.get_statistics().active_arrays == len(held)
            assert taker(one, other) == 0

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_left_by_an_exception(self, pool: MemoryPool, error: type[BaseException]) -> None:
        with pytest.raises(error), pool.numpy():
            raise error
        assert taker(pool) is None

    def test_nothing_is_returned_and_nothing_swallowed(self, pool: MemoryPool) -> None:
        block = pool.numpy()
        assert isinstance(block, use)
        assert block.__enter__() is None
        assert not block.__exit__(None, None, None)
        assert not block.__exit__(None, None, None)
        assert taker(pool) is None


class TestContexts:
    def test_threads_do_not_inherit_and_may_enter(self, pool: MemoryPool) -> None:
        if getattr(sys.flags, "thread_inherit_context", 0):
            pytest.skip("this Python lets threads inherit their starter's context")

        def own() -> int | None:
            with pool.numpy():
                return taker(pool)

        with pool.numpy():
            assert in_thread(lambda: taker(pool)) is None
        assert in_thread(own) == 0
        assert taker(pool) is None

    def test_a_block_may_be_shared_by_threads(self, pool: MemoryPool) -> None:
        block, both_in = pool.numpy(), threading.Barrier(2, timeout=60)
        found: list[int | None] = []

        def enter() -> None:
            with block:
                both_in.wait()
                array = np.ones(5000, np.uint8)
                both_in.wait()
                del array
            found.append(taker(pool))

        threads = [threading.Thread(target=enter) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [None, None]
        assert pool.get_statistics().total_allocations == 2

    def test_tasks_inherit(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        found = {}

        async def inherit(name: str) -> None:
            found[name] = taker(one, other)
            with other.numpy():
                await asyncio.sleep(0)
                found[name + " inner"] = taker(one, other)
            found[name + " after"] = taker(one, other)

        async def main() -> None:
            with one.numpy():
                tasks = [asyncio.ensure_future(inherit(name)) for name in ("a", "b")]
                await asyncio.sleep(0)
                found["main"] = taker(one, other)
            await asyncio.gather(*tasks)
            found["end"] = taker(one, other)

        asyncio.run(main())
        inherited = {f"{name}{part}": pool for name in "ab" for part, pool in (("", 0), (" inner", 1), (" after", 0))}
        assert found == inherited | {"main": 0, "end": None}

    def test_a_copied_context_closes_its_own_copy(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with pool.numpy():
            copied = contextvars.copy_context()
        assert copied.run(taker, pool) == 0
        assert taker(pool) is None

    def test_an_exception_group_of_tasks(self, pool: MemoryPool) -> None:
        if sys.version_info < (3, 11):
            pytest.skip("asyncio.TaskGroup came with Python 3.11")

        async def fail() -> None:
            with pool.numpy():
                await asyncio.sleep(0)
                raise KeyError(taker(pool))

        async def main() -> None:
            with pool.numpy():
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    group.create_task(fail())

        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: F821
            asyncio.run(main())
        assert [error.args for error in caught.value.exceptions] == [(0,), (0,)]
        assert pool.get_statistics().active_arrays == 0


class TestGenerators:
    @staticmethod
    def generator(pool: MemoryPool) -> Iterator[int | None]:
        with pool.numpy():
            while True:
                yield taker(pool)

    def test_closed(self, pool: MemoryPool) -> None:
        generator = self.generator(pool)
        assert next(generator) == 0
        generator.close()
        assert taker(pool) is None

    def test_closed_after_the_block_around_its_start(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        with one.numpy():
            generator = self.generator(other)
            next(generator)
            assert taker(one, other) == 1
        assert taker(one, other) == 1
        generator.close()
        assert taker(one, other) is None

    def test_closed_out_of_order(self, make_pool: MakePool) -> None:
        pools = [make_pool() for _ in range(4)]
        generators = [self.generator(pool) for pool in pools]
        for generator in generators:
            next(generator)
        found = []
        for index in (1, 3, 0, 2):
            generators[index].close()
            found.append(taker(*pools))
        assert found == [3, 2, 2, None]

    def test_closed_on_another_thread(self, make_pool: MakePool) -> None:
        one, other = make_pool(), make_pool()
        generator = self.generator(one)

        def close() -> int | None:
            with other.numpy():
                generator.close()
                return taker(one, other)

        context = contextvars.copy_context()
        assert context.run(next, generator) == 0
        assert in_thread(close) == 1
        assert taker(one, other) is None


class TestExhaustion:
    PAIR = (
        (
            "WARNING",
            "MetalMemoryPool: Heap exhausted for 1099511627776MB allocation, falling back to device allocation",
        ),
        ("INFO", "MetalMemoryPool: Consider increasing heap_size_mb or num_heaps"),
    )

    @pytest.mark.parametrize("create", [np.empty, np.zeros])
    def test_logs_the_pair_when_the_block_ends(self, make_pool: MakePool, log_lines: Any, create: Any) -> None:
        pool = make_pool()
        with pool.numpy():
            with pytest.raises(MemoryError, match=r"1\.00 EiB"):
                create(TOO_MUCH, np.uint8)
            assert log_lines() == []
        assert tuple(log_lines()) == self.PAIR
        stats = pool.get_statistics()
        assert (stats.exhaustion_events, stats.total_allocations, stats.fallback_allocations) == (1, 0, 0)

    def test_or_at_the_next_call(self, make_pool: MakePool, log_lines: Any) -> None:
        for call in (
            lambda pool: pool.get_statistics(),
            lambda pool: pool.heaps(),
            lambda pool: pool.reset_statistics(),
            lambda pool: pool.allocate(1),
            lambda pool: pool.trim(),
        ):
            pool = make_pool()
            with pool.numpy():
                with pytest.raises(MemoryError):
                    np.empty(TOO_MUCH, np.uint8)
                call(pool)
                assert tuple(log_lines()) == self.PAIR
            assert log_lines() == []

    def test_without_fallback(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(on_exhaustion="raise")
        with pool.numpy():
            held = np.empty(15 * MIB, np.uint8)
            with pytest.raises(MemoryError):
                np.empty(2 * MIB, np.uint8)
            assert np.empty(1000, np.uint8).size == 1000
        assert held.size == 15 * MIB
        assert [level for level, _ in log_lines()] == ["WARNING", "INFO"]

    def test_max_bytes(self, make_pool: MakePool) -> None:
        pool = make_pool(max_bytes=MIB)
        with pool.numpy():
            held = np.ones(MIB, np.uint8)
            with pytest.raises(MemoryError):
                np.empty(1024, np.uint8)
            del held
            assert np.ones(MIB, np.uint8).all()

    def test_a_pool_closed_inside_its_own_block(self, pool: MemoryPool, log_lines: Any) -> None:
        with pool.numpy():
            kept = np.ones(5000, np.uint8)
            pool.close()
            log_lines()
            with pytest.raises(MemoryError):
                np.empty(5000, np.uint8)
            small = np.ones(100, np.uint8)
        assert log_lines() == [("ERROR", "MetalMemoryPool: NumPy asked a closed pool for memory")]
        assert kept.sum() + small.sum() == 5100
        del kept
        assert pool.get_statistics().active_allocations == 0
        with pool.numpy():
            assert np.ones(100, np.uint8).all()

    def test_a_disabled_pool_serves_from_the_device(self, make_pool: MakePool, log_lines: Any) -> None:
        pool = make_pool(enabled=False)
        with pool.numpy():
            array = np.zeros(MIB, np.uint8)
        assert not array.any()
        stats = pool.get_statistics()
        assert (stats.active_arrays, stats.fallback_allocations, stats.exhaustion_events) == (1, 1, 1)
        assert log_lines() == []
