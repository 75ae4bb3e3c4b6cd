"""Random sequences of everything a buffer pool can do, against a model of intervals; on one thread and on several."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tierpool import BufferPool, Lease, OutOfMemoryError, StaleBufferError

MAX_BYTES = 1 << 20
SIZES = st.one_of(st.integers(0, 600), st.integers(0, 70_000), st.sampled_from([255, 256, 257, 2048, 2049, 4096]))
DTYPES = ["u1", "i2", "f4", "c16"]


class Held:
    """A live lease and the byte it is filled with."""

    def __init__(self, lease: Lease, nbytes: int, mark: int) -> None:
        assert lease.live
        assert lease.nbytes == nbytes
        self.lease = lease
        self.nbytes = nbytes
        self.mark = mark
        self.array: Any = None
        array = lease.array("u1")
        assert array.nbytes == nbytes
        array[:] = mark

    def check(self) -> None:
        assert self.lease.live
        assert bytes(self.lease.array("u1")) == bytes([self.mark]) * self.nbytes


class Model(RuleBasedStateMachine):
    """What is live holds its own bytes; what has ended stays ended; the books are true."""

    @initialize(
        size_classes=st.sampled_from(["eighths", "power-of-two", "exact"]),
        zero=st.sampled_from(["never", "fresh", "always", "poison"]),
        max_buffers=st.sampled_from([None, 12]),
    )
    def build(self, size_classes: str, zero: str, max_buffers: int | None) -> None:
        self.arena = BufferPool(size_classes=size_classes, zero=zero, max_bytes=MAX_BYTES, max_buffers=max_buffers)
        self.zero = zero
        self.live: list[Held] = []
        self.stale: list[Lease] = []
        self.owners: list[Any] = []
        self.marks = 0

    def take(self, lease: Lease, nbytes: int) -> None:
        expected = {"always": 0, "poison": 0xCB}.get(self.zero)
        if expected is not None:
            assert bytes(lease.array("u1")) == bytes([expected]) * nbytes
        self.marks = self.marks % 250 + 1
        self.live.append(Held(lease, nbytes, self.marks))

    @rule(items=st.integers(0, 5000), dtype=st.sampled_from(DTYPES), exact=st.booleans())
    def alloc(self, items: int, dtype: str, exact: bool) -> None:
        nbytes = items * np.dtype(dtype).itemsize
        before = self.arena.get_statistics().in_use_count
        try:
            lease = (self.arena.alloc_exact if exact else self.arena.alloc)(nbytes, dtype, (items,))
        except OutOfMemoryError:
            assert self.arena.get_statistics().in_use_count == before
            return
        assert (lease.shape, lease.dtype) == ((items,), np.dtype(dtype))
        self.take(lease, nbytes)

    @rule(sizes=st.lists(SIZES, max_size=6))
    def alloc_batch(self, sizes: list[int]) -> None:
        before = self.arena.get_statistics().in_use_count
        try:
            batch = self.arena.alloc_batch(sizes)
        except OutOfMemoryError:
            assert self.arena.get_statistics().in_use_count == before
            return
        for lease, nbytes in zip(batch, sizes, strict=True):
            self.take(lease, nbytes)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.live:
            held = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
            held.check()
            if held.array is not None:
                with pytest.raises(BufferError, match="live views"):
                    self.arena.release(held.lease)
                held.array = None
            self.arena.release(held.lease)
            self.stale.append(held.lease)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.live:
            self.live.pop(data.draw(st.integers(0, len(self.live) - 1))).check()

    @rule(data=st.data())
    def view(self, data: st.DataObject) -> None:
        if self.live:
            held = self.live[data.draw(st.integers(0, len(self.live) - 1))]
            held.array = None if held.array is not None else held.lease.array()

    @rule()
    def reset(self) -> None:
        viewed = [held for held in self.live if held.array is not None]
        try:
            self.arena.reset()
        except BufferError:
            assert viewed
            return
        assert not viewed
        self.stale += [held.lease for held in self.live]
        self.live.clear()

    @rule(data=st.data())
    def use_what_has_ended(self, data: st.DataObject) -> None:
        if not self.stale:
            return
        lease = self.stale[data.draw(st.integers(0, len(self.stale) - 1))]
        assert not lease.live
        for use in (self.arena.release, Lease.release, Lease.array, memoryview):
            try:
                use(lease)
            except StaleBufferError:
                continue
            raise AssertionError("a lease that has ended was used")

    @rule()
    def forget_what_has_ended(self) -> None:
        self.stale.clear()

    @rule(nbytes=st.integers(0, MAX_BYTES))
    def trim(self, nbytes: int) -> None:
        free_bytes = self.arena.free_bytes
        given_back = self.arena.trim(nbytes)
        assert min(nbytes, free_bytes) <= given_back <= free_bytes

    @rule()
    def clear(self) -> None:
        self.arena.clear()
        assert self.arena.free_count == 0

    @rule(count=st.integers(1, 3000))
    def register(self, count: int) -> None:
        owner = np.ones(count)
        assert self.arena.register_existing(owner[count // 2 :]).nbytes == owner.nbytes
        self.owners.append(owner)

    @rule()
    def drop_owner(self) -> None:
        if self.owners:
            self.owners.pop()

    @invariant()
    def live_leases_hold_their_own_bytes(self) -> None:
        for held in self.live:
            held.check()
        spans = sorted((held.lease.address, held.nbytes) for held in self.live)
        for (address, nbytes), (following, _) in itertools.pairwise(spans):
            assert address + nbytes <= following

    @invariant()
    def books_are_true(self) -> None:
        stats = self.arena.get_statistics()
        assert stats.in_use_count == len(self.live)
        assert stats.live_requested_bytes == sum(held.nbytes for held in self.live)
        assert stats.live_views == sum(held.array is not None for held in self.live)
        assert stats.held_count == stats.in_use_count + stats.free_count
        assert stats.held_bytes == stats.in_use_bytes + stats.free_bytes <= MAX_BYTES
        assert stats.registered_count == len(self.owners)
        assert stats.registered_bytes == sum(owner.nbytes for owner in self.owners)
        source = self.arena.source.get_statistics()
        assert source.active_allocations == stats.held_count  # no buffer is lost

    def teardown(self) -> None:
        if hasattr(self, "arena"):
            self.live.clear()
            self.stale.clear()
            self.arena.close()
            assert self.arena.source.get_statistics().active_allocations == 0


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


class Worker(threading.Thread):
    """Does everything at random, with views that keep others' resets away, and checks each byte it owns."""

    def __init__(self, arena: BufferPool, mark: int, rounds: int) -> None:
        super().__init__()
        self.arena = arena
        self.mark = mark
        self.rounds = rounds
        self.random = random.Random(mark)
        self.error: BaseException | None = None
        self.held: list[tuple[Lease, Any]] = []

    def run(self) -> None:
        try:
            for _ in range(self.rounds):
                self.random.choice(
                    [self.take, self.take, self.take_many, self.give_back, self.reset, self.keep_books]
                )()
            self.held.clear()
        except BaseException as error:
            self.error = error

    def own(self, lease: Lease) -> None:
        try:
            array = lease.array()
        except StaleBufferError:  # another thread's reset came first
            return
        array[:] = self.mark
        self.held.append((lease, array))

    def take(self) -> None:
        self.own(self.arena.alloc(self.random.randrange(5000)))

    def take_many(self) -> None:
        try:
            for lease in self.arena.alloc_batch([self.random.randrange(3000) for _ in range(5)]):
                self.own(lease)
        except StaleBufferError:
            pass

    def give_back(self) -> None:
        if self.held:
            lease, array = self.held.pop(self.random.randrange(len(self.held)))
            assert (array == self.mark).all()
            del array
            if self.random.random() < 0.5:
                try:
                    lease.release()
                except StaleBufferError:
                    assert not lease.live

    def reset(self) -> None:
        try:
            self.arena.reset()
            assert not any(lease.live for lease, _ in self.held)
        except BufferError:
            pass
        assert all((array == self.mark).all() for _, array in self.held)

    def keep_books(self) -> None:
        if self.random.random() < 0.3:
            self.arena.trim(self.random.randrange(20_000))
        owner = np.ones(100)
        self.arena.register_existing(owner)


def test_several_threads() -> None:
    arena = BufferPool()
    workers = [Worker(arena, mark, 1500) for mark in range(1, 6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.error for worker in workers] == [None] * 5
    stats = arena.get_statistics()
    assert (stats.in_use_count, stats.live_views, stats.registered_count) == (0, 0, 0)
    assert stats.held_count == stats.free_count == arena.source.get_statistics().active_allocations
    assert stats.fresh + stats.reused > 1000
