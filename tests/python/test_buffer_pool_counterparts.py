"""The tests of the pool that this one replaces, each by its name there, with what it asserted."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tierpool import BufferPool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def powers() -> BufferPool:
    """The original's size classes."""
    return BufferPool(size_classes="power-of-two")


def class_sizes(arena: BufferPool) -> list[int]:
    return [one.class_bytes for one in arena.get_statistics().classes]


@pytest.mark.parametrize(
    ("nbytes", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (1023, 1024), (1024, 1024), (1025, 2048)]
)
def test_bucket_size_powers(powers: BufferPool, nbytes: int, bucket: int) -> None:
    lease = powers.alloc(nbytes)
    assert class_sizes(powers) == [bucket]
    assert lease.nbytes == nbytes  # the original showed the bucket here


def test_pool_arena_reset_recycles_in_use(powers: BufferPool) -> None:
    held = [powers.alloc(nbytes) for nbytes in (1024, 2048, 1024)]
    addresses = {lease.address for lease in held}
    assert (powers.in_use_count, powers.free_count) == (3, 0)
    powers.reset()
    assert (powers.in_use_count, powers.free_count, powers.free_bytes) == (0, 3, 4096)
    again = [powers.alloc(1024), powers.alloc(2048)]
    assert {lease.address for lease in again} < addresses
    assert (powers.in_use_count, powers.free_count) == (2, 1)
    assert powers.get_statistics().fresh == 3


def test_pool_reset_with_no_alloc_is_idempotent(powers: BufferPool) -> None:
    for _ in range(3):
        powers.reset()
    assert (powers.in_use_count, powers.free_count, powers.get_statistics().held_count) == (0, 0, 0)


def test_pool_release_remains_supported(powers: BufferPool) -> None:
    lease = powers.alloc(1024)
    powers.release(lease)
    # The original left it in use as well, and so recycled it twice.
    assert (powers.in_use_count, powers.free_count) == (0, 1)
    again = powers.alloc(1024)
    assert (powers.in_use_count, powers.free_count) == (1, 0)
    assert again.live
    assert not lease.live


def test_register_existing_does_not_recycle_on_reset(powers: BufferPool) -> None:
    weights = np.arange(100.0)
    powers.register_existing(weights)
    assert powers.in_use_count == 0
    powers.reset()
    assert (powers.in_use_count, powers.free_count) == (0, 0)
    assert powers.get_statistics().registered_count == 1
    del powers
    assert weights.tolist() == list(range(100))  # outlives the pool


def test_register_existing_idempotent(powers: BufferPool) -> None:
    weights = np.arange(100.0)
    for _ in range(3):
        powers.register_existing(weights)
    assert powers.get_statistics().registered_count == 1
    assert powers.unregister_existing(weights)
    assert not powers.unregister_existing(weights)  # no second removal


@pytest.mark.parametrize("value", ["1", "true"])
def test_register_existing_no_residency_env_is_noop(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TIERPOOL_NO_RESIDENCY", value)
    arena = BufferPool()
    weights = np.arange(100.0)
    assert not arena.register_existing(weights).pinned
    stats = arena.get_statistics()
    assert (stats.registered_count, stats.registered_bytes, stats.pinned_bytes) == (1, 800, 0)


def test_residency_is_on_unless_switched_off() -> None:
    arena = BufferPool()
    weights = np.arange(100.0)
    registration = arena.register_existing(weights)
    # Where the system allows no locking, it says so.
    assert arena.get_statistics().pinned_bytes == (800 if registration.pinned else 0)


def test_a_batch_holds_as_many_buffers_as_it_has_leases(powers: BufferPool) -> None:
    batch = powers.alloc_batch([100, 200, 300, 400])
    assert powers.get_statistics().held_count == len(batch) == 4


def test_reset_and_clear_leave_nothing(powers: BufferPool) -> None:
    batch = powers.alloc_batch([100, 200, 300, 400])
    powers.reset()
    powers.clear()
    assert powers.get_statistics().held_count == 0
    assert not batch[0:0]
    assert powers.source.get_statistics().active_allocations == 0


def test_ten_registrations_go_with_their_owners(powers: BufferPool) -> None:
    held = [np.ones(1000) for _ in range(10)]
    for array in held:
        powers.register_existing(array)
    assert powers.get_statistics().registered_count == 10
    del array
    held.clear()
    assert powers.get_statistics().registered_count == 0


def test_clones_and_views_share_one_registration(powers: BufferPool) -> None:
    weights = np.ones((100, 100))
    clone = weights
    registrations = [
        powers.register_existing(view) for view in (weights, clone, weights[3:], weights.T, weights.ravel())
    ]
    assert len({(one.address, one.nbytes) for one in registrations}) == 1
    assert powers.get_statistics().registered_bytes == weights.nbytes
    del weights, clone
    assert powers.get_statistics().registered_count == 0


def test_a_hundred_in_and_out_leave_nothing_behind(powers: BufferPool) -> None:
    for _ in range(100):
        powers.register_existing(np.ones(1000))
        powers.alloc(1000)
    stats = powers.get_statistics()
    assert (stats.registered_count, stats.pinned_bytes, stats.in_use_count) == (0, 0, 0)
    assert powers.source.get_statistics().total_allocations == 1  # the device was asked once


def test_an_empty_batch_asks_for_nothing(powers: BufferPool) -> None:
    assert len(powers.alloc_batch([])) == 0
    assert powers.source.get_statistics().total_allocations == 0
    powers.alloc_batch([100, 200, 300, 400])
    assert powers.source.get_statistics().total_allocations == 4


@pytest.mark.parametrize("nbytes", [1024, 1028])
def test_mapped_tensors_are_exact_and_no_scratch(powers: BufferPool, tmp_path: Path, nbytes: int) -> None:
    file = tmp_path / "tensor"
    file.write_bytes(bytes(range(256)) * 4 + bytes(nbytes - 1024))
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    tensor = np.frombuffer(mapped, np.uint8)
    assert powers.register_existing(tensor).nbytes == nbytes
    stats = powers.get_statistics()
    assert (stats.registered_count, stats.in_use_count, stats.held_count) == (1, 0, 0)
    powers.reset()
    del powers
    assert tensor[:1024].tobytes() == bytes(range(256)) * 4


@pytest.mark.parametrize("nbytes", [1024, 1028])
def test_loaded_tensors_are_exact(powers: BufferPool, nbytes: int) -> None:
    tensor = powers.alloc_exact(nbytes)
    stats = powers.get_statistics()
    assert (tensor.nbytes, stats.held_bytes, stats.waste_bytes) == (nbytes, nbytes, 0)
