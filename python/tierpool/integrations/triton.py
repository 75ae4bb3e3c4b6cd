"""Scratch memory of Triton kernels from a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierpool.integrations.device_index import device_index
from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierpool._core import Buffer
    from tierpool.pool import MemoryPool


class Scratch:
    """A buffer in the form that Triton asks for."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def data_ptr(self) -> int:
        """Address of the memory."""
        return self._buffer.address


def allocator(pool: MemoryPool) -> Callable[[int, int, int | None], Scratch]:
    """Make an allocator for `triton.set_allocator`.

    Parameters
    ----------
    pool : MemoryPool
        A pool on the GPU that kernels run on.

    Returns
    -------
    callable
        Takes size and alignment in bytes and a stream; the memory is for that stream, and goes back when Triton drops
        it, in the stream's order.

    Raises
    ------
    ValueError
        For a pool that is not on a GPU.
    """
    device_index(pool)

    def allocate(size: int, alignment: int, stream: int | None) -> Scratch:
        return Scratch(pool.allocate(size, alignment, stream=stream))

    return allocate


def install(pool: MemoryPool) -> None:
    """Serve the scratch memory of kernels that this context launches from a pool: `triton.set_allocator`.

    Triton keeps the choice in the context: a new thread installs for itself.

    Raises
    ------
    ImportError
        Without Triton; the message says how to install it.
    ValueError
        For a pool that is not on a GPU.
    """
    import_optional("triton", "triton").set_allocator(allocator(pool))
