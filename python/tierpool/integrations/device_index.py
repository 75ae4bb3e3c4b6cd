"""Which GPU a pool is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierpool import _core

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
