"""Integrations where their libraries, or a GPU, are missing: each says so, and what to do."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool import MemoryPool

# By extra: the module it needs and a call that needs it first.
NEEDS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "torch": ("torch", lambda module, pool: module.install(pool)),
    "cupy": ("cupy", lambda module, pool: module.install(pool)),
    "numba": ("numba.cuda", lambda module, pool: module.install(pool)),
    "triton": ("triton", lambda module, pool: module.install(pool)),
    "jax": ("jax", lambda module, pool: module.array(pool.allocate(8))),
}


@pytest.mark.parametrize("extra", NEEDS)
def test_a_missing_library_is_named_with_its_extra(
    extra: str, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, call = NEEDS[extra]
    module = importlib.import_module(f"tierpool.integrations.{extra}")
    if extra == "triton":  # looks at the pool first
        monkeypatch.setattr(module, "device_index", lambda _: 0)
    monkeypatch.setitem(sys.modules, needed.partition(".")[0], None)
    monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(ImportError, match=rf"needs {needed}, .*pip install 'tierpool\[{extra}\]'"):
        call(module, pool)


def test_a_pool_that_is_on_no_gpu_is_refused(pool: MemoryPool) -> None:
    from tierpool.integrations import triton
    from tierpool.integrations.device_index import device_index

    for refuse in (device_index, triton.allocator):
        with pytest.raises(ValueError, match="is on device 'host', not on a GPU: build it with device='cuda:0'"):
            refuse(pool)


class TestTorchOnTheHost:
    def test_tensors_of_a_pool(self, pool: MemoryPool) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
        from tierpool.integrations.torch import pinned_empty, release

        tensor = pinned_empty((3, 4), torch.float32, pool)
        assert (tuple(tensor.shape), tensor.dtype) == ((3, 4), torch.float32)
        tensor.fill_(1.5)
        assert tensor.sum().item() == 18
        view = tensor[1:]
        with pytest.raises(ValueError, match="no view of it"):
            release(view)
        release(tensor)
        with pytest.raises(ValueError, match="once"):
            release(tensor)
        del tensor
        assert pool.get_statistics().active_allocations == 1  # the view
        del view
        assert pool.get_statistics().active_allocations == 0

    def test_a_release_that_fails_releases_nothing(self, pool: MemoryPool) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
        from tierpool import DeviceError
        from tierpool.integrations.torch import pinned_empty, release

        tensor = pinned_empty(5, torch.int8, pool)
        with pytest.raises(DeviceError, match="has no streams"):
            release(tensor, after=0xDEAD)
        release(tensor)

    def test_one_dimension_by_a_number(self, pool: MemoryPool) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
        from tierpool.integrations.torch import pinned_empty

        assert tuple(pinned_empty(5, torch.int8, pool).shape) == (5,)

    def test_a_pool_out_of_the_processors_reach(self, make_pool: Callable[..., MemoryPool]) -> None:
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tierpool[torch]'")
        from tierpool.integrations.torch import pinned_empty

        with pytest.raises(BufferError, match="cannot reach"):
            pinned_empty(5, torch.int8, make_pool(device="simulated"))

    def test_forgetting_what_was_never_used(self, pool: MemoryPool) -> None:
        from tierpool.integrations.torch import forget

        with pytest.raises(ValueError, match="with use"):
            forget(pool)


# What `torch.cuda.memory_stats` documents.
PYTORCHS_NAMES = {
    f"{figure}.{part}.{value}"
    for figure in (
        *("allocation", "segment", "active", "inactive_split", "allocated_bytes", "reserved_bytes", "active_bytes"),
        *("inactive_split_bytes", "requested_bytes"),
    )
    for part in ("all", "large_pool", "small_pool")
    for value in ("current", "peak", "allocated", "freed")
} | {"num_alloc_retries", "num_ooms", "num_sync_all_streams", "num_device_alloc", "num_device_free", "max_split_size"}


def test_memory_stats_have_pytorchs_names_and_the_pools_figures(pool: MemoryPool) -> None:
    kept = [pool.allocate(1000), pool.allocate(3 << 20)]
    pool.allocate(2 << 20)
    stats = pool.memory_stats()
    whole = pool.get_statistics()
    assert stats["allocation.all.current"] == len(kept)
    assert stats["allocation.all.allocated"] == 3
    assert stats["allocation.all.freed"] == 1
    assert stats["allocated_bytes.all.current"] == 1024 + (3 << 20)
    assert stats["allocated_bytes.all.peak"] == 1024 + (5 << 20)
    assert set(stats) <= PYTORCHS_NAMES
    assert stats["active_bytes.all.current"] == stats["allocated_bytes.all.current"]
    assert stats["reserved_bytes.all.current"] == round(whole.committed_mb * 2**20)
    assert stats["reserved_bytes.all.peak"] == stats["reserved_bytes.all.current"]
    assert (stats["num_device_alloc"], stats["num_device_free"]) == (whole.device_allocations, 0)
    assert stats["requested_bytes.all.allocated"] == 1000 + (5 << 20)
    assert all(isinstance(value, int) for value in stats.values())
    too_large = pool.allocate(64 << 20)
    assert pool.memory_stats()["num_device_alloc"] == stats["num_device_alloc"] + 1
    assert pool.memory_stats()["reserved_bytes.all.current"] >= too_large.nbytes
    too_large.release()
    assert pool.memory_stats()["num_device_free"] == 1
    assert pool.memory_stats()["reserved_bytes.all.current"] == stats["reserved_bytes.all.current"]
    assert pool.memory_stats()["reserved_bytes.all.peak"] >= 64 << 20


def test_the_peak_of_allocated_bytes_remembers_what_was_outside_the_heaps(pool: MemoryPool) -> None:
    kept = pool.allocate(1 << 20)
    pool.allocate(100 << 20).release()
    stats = pool.memory_stats()
    assert stats["allocated_bytes.all.current"] == kept.nbytes
    assert stats["allocated_bytes.all.peak"] == stats["active_bytes.all.peak"] == 101 << 20
    pool.allocate(50 << 20).release()
    assert pool.memory_stats()["allocated_bytes.all.peak"] == 101 << 20
    pool.reset_statistics()
    assert pool.memory_stats()["allocated_bytes.all.peak"] == kept.nbytes


def test_memory_stats_count_requests_that_nothing_could_serve(make_pool: Callable[..., MemoryPool]) -> None:
    pool = make_pool(on_exhaustion="raise")
    with pytest.raises(MemoryError):
        pool.allocate(64 << 20)
    assert pool.memory_stats()["num_ooms"] == 1
    assert make_pool().memory_stats()["num_ooms"] == 0
