"""Which GPU a pool is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierpool import _core
    from tierpool.pool import MemoryPool

_PREFIX = "cuda:"


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
