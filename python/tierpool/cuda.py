"""Whether this machine has CUDA, and why not.

Importing this module, or the package, starts no driver; the first call here, or the first pool on a CUDA device, does.
A process that has started it cannot use CUDA in its forked children: start those by ``spawn`` or ``forkserver``.

Examples
--------
>>> from tierpool import cuda
>>> isinstance(cuda.is_available(), bool)
True
"""

from __future__ import annotations

from tierpool import _core

__all__ = ["device_count", "device_names", "driver_version", "is_available", "unavailable_reason"]


def is_available() -> bool:
    """Whether a pool can be built on ``cuda:0``. Never raises."""
    return unavailable_reason() is None


def unavailable_reason() -> str | None:
    """Why CUDA cannot be used here: no driver, no device, a driver too old, a forked child. None when it can."""
    return _core.cuda_unavailable_reason() or None


def device_count() -> int:
    """Number of CUDA devices this process may use; 0 without CUDA."""
    return _core.cuda_device_count() if is_available() else 0


def device_names() -> list[str]:
    """What their maker calls the devices, in the order of ``cuda:0``, ``cuda:1``, ..."""
    return [_core.cuda_device_name(index) for index in range(device_count())]


def driver_version() -> tuple[int, int] | None:
    """Major and minor of the newest CUDA version that the driver knows. None without CUDA."""
    version = _core.cuda_driver_version()
    return (version // 1000, version % 1000 // 10) if is_available() else None
