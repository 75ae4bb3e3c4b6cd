"""Which GPU a pool is on, or follows the streams of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierpool import _core
    from tierpool.pool import MemoryPool

_PREFIX = "cuda:"
_KINDS_WITH_STREAMS = frozenset({"cuda", "pinned", "pinned-write-combined"})


def device_index(pool: _core.MemoryPool) -> int:
    """Return the index of a pool's GPU.

    Raises
    ------
    ValueError
        For a pool that is not on a GPU.
    """
    if not pool.device.startswith(_PREFIX):
        raise ValueError(f"the pool is on device {pool.device!r}, not on a GPU: build it with device='cuda:0'")
    return int(pool.device.removeprefix(_PREFIX))


def index_of_streams(device: str) -> int | None:
    """Return the index of the GPU whose streams the memory of a device follows; None where it follows none."""
    kind, _, index = device.partition(":")
    return int(index or 0) if kind in _KINDS_WITH_STREAMS else None


def pools_by_device(pools: Sequence[MemoryPool]) -> dict[int, MemoryPool]:
    """Return pools by the index of their GPU.

    Raises
    ------
    ValueError
        For a pool that is not on a GPU, or two on the same one.
    """
    by_device = {device_index(pool): pool for pool in pools}
    if len(by_device) < len(pools):
        raise ValueError(f"{len(pools)} pools on {len(by_device)} GPUs: pass one pool a GPU")
    return by_device
