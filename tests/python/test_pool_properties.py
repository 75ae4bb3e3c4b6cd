"""The pool against a model of a few lines: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tierpool import Buffer, MemoryPool, OutOfMemoryError

HEAP_BYTES = 64 * 1024
UNIT_BYTES = 256
MIB = 1 << 20
SIZES = st.one_of(st.integers(0, 2000), st.integers(0, HEAP_BYTES), st.integers(HEAP_BYTES, 3 * HEAP_BYTES))


def block_bytes(size: int) -> int:
    return max(-(-size // UNIT_BYTES), 1) * UNIT_BYTES


@dataclass(eq=False)
class Held:
    """One live buffer as the model knows it."""

    buffer: Buffer
    pattern: int
    views: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer.array()[:] = self.pattern

    def check(self) -> None:
        assert np.all(self.buffer.array() == self.pattern)


class PoolMachine(RuleBasedStateMachine):
    """Operations on a pool of three small heaps."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.live: list[Held] = []
        self.allocations = self.deallocations = self.fallbacks = self.exhaustions = 0
        self.largest = 0
        self.pool = self.build()

    on_exhaustion = "fallback"

    def build(self) -> MemoryPool:
        return MemoryPool(
            heap_size_mb=HEAP_BYTES / MIB,
            num_heaps=3,
            warmup_sizes=[],
            log_exhaustion=False,
            on_exhaustion=self.on_exhaustion,
        )

    def note(self, buffer: Buffer, size: int) -> Held:
        assert buffer.nbytes == size
        self.allocations += 1
        self.largest = max(self.largest, size)
        if buffer.heap_index is None:
            self.fallbacks += 1
            self.exhaustions += 1
        held = Held(buffer, pattern=self.allocations % 251)
        self.live.append(held)
        return held

    def forget(self, held: Held) -> None:
        self.live.remove(held)
        self.deallocations += 1

    @rule(target=held, size=SIZES, alignment=st.sampled_from([1, 256, 4096]))
    def allocate(self, size: int, alignment: int) -> Any:
        try:
            buffer = self.pool.allocate(size, alignment)
        except OutOfMemoryError:
            assert self.on_exhaustion == "raise"
            self.exhaustions += 1
            return multiple()
        assert buffer.address % alignment == 0
        if size > HEAP_BYTES:
            assert buffer.heap_index is None
        return self.note(buffer, size)

    @rule(target=held, size=SIZES)
    def try_allocate(self, size: int) -> Any:
        largest = self.pool.get_statistics().largest_free_mb * MIB
        buffer = self.pool.try_allocate(size)
        assert buffer is not None or block_bytes(size) > largest
        if buffer is None:  # then not even what was parked could help
            now = self.pool.get_statistics()
            assert block_bytes(size) > now.largest_free_mb * MIB
            assert now.cached_mb == 0 or block_bytes(size) > HEAP_BYTES
            self.exhaustions += 1
            return multiple()
        assert buffer.heap_index is not None
        return self.note(buffer, size)

    @rule(target=held, sizes=st.lists(SIZES, max_size=6))
    def allocate_batch(self, sizes: list[int]) -> Any:
        try:
            batch = self.pool.allocate_batch(sizes)
        except OutOfMemoryError:
            assert self.on_exhaustion == "raise"
            self.exhaustions += 1
            return multiple()
        assert len(set(batch.addresses.tolist())) == len(sizes)
        return multiple(*[self.note(buffer, size) for buffer, size in zip(batch, sizes, strict=True)])

    @rule(held=consumes(held), by_pool=st.booleans())
    def release(self, held: Held, by_pool: bool) -> None:
        held.check()
        release = partial(self.pool.release, held.buffer) if by_pool else held.buffer.release
        if held.views:
            with pytest.raises(BufferError):
                release()
            held.views.clear()
            gc.collect(0)
        release()
        self.forget(held)
        with pytest.raises(ValueError, match="released already"):
            release()

    @rule(held=consumes(held))
    def drop(self, held: Held) -> None:
        held.check()
        views, held.views = held.views, []
        kept_by_a_view = bool(views)
        before = self.pool.get_statistics().active_allocations
        self.forget(held)
        del held.buffer
        assert self.pool.get_statistics().active_allocations == before - (not kept_by_a_view)
        views.clear()
        gc.collect(0)

    @rule(held=held, see=st.sampled_from([memoryview, np.asarray, np.from_dlpack]))
    def look(self, held: Held, see: Any) -> None:
        if held in self.live:
            held.views.append(see(held.buffer))

    @rule(held=held)
    def look_away(self, held: Held) -> None:
        held.views.clear()

    @rule()
    def trim(self) -> None:
        before = self.pool.get_statistics().committed_mb
        given_back = self.pool.trim()
        assert self.pool.get_statistics().committed_mb == before - given_back / MIB

    @rule()
    def warm_up(self) -> None:
        self.pool.warmup([HEAP_BYTES / MIB])
        stats = self.pool.get_statistics()
        assert stats.committed_mb == stats.total_capacity_mb

    @rule()
    def reset(self) -> None:
        self.pool.reset_statistics()
        self.allocations = self.deallocations = self.fallbacks = self.exhaustions = self.largest = 0

    @invariant()
    def statistics_are_the_models(self) -> None:
        stats = self.pool.get_statistics()
        in_heaps = [held.buffer for held in self.live if held.buffer.heap_index is not None]
        outside = [held.buffer for held in self.live if held.buffer.heap_index is None]
        assert stats.active_allocations == len(self.live)
        assert stats.total_allocations == self.allocations
        assert stats.total_deallocations == self.deallocations
        assert stats.fallback_allocations == self.fallbacks
        assert stats.exhaustion_events == self.exhaustions
        assert stats.largest_allocation_mb == self.largest / MIB
        assert stats.used_capacity_mb * MIB >= sum(block_bytes(buffer.nbytes) for buffer in in_heaps)
        assert stats.active_heaps == len({buffer.heap_index for buffer in in_heaps})
        assert stats.fallback_used_mb * MIB >= sum(buffer.nbytes for buffer in outside)
        assert stats.used_capacity_mb <= stats.peak_used_mb <= stats.total_capacity_mb

    @invariant()
    def live_memory_is_disjoint_and_intact(self) -> None:
        ranges = sorted((held.buffer.address, held.buffer.nbytes) for held in self.live)
        for (address, size), (following, _) in pairwise(ranges):
            assert address + max(size, 1) <= following
        for held in self.live:
            held.check()

    def teardown(self) -> None:
        self.live.clear()
        self.pool.close()


class RaisingPoolMachine(PoolMachine):
    """The same without fallbacks."""

    on_exhaustion = "raise"


for machine in (PoolMachine, RaisingPoolMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestPool = PoolMachine.TestCase
TestPoolWithoutFallback = RaisingPoolMachine.TestCase
