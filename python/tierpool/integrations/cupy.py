"""CuPy arrays in a pool's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierpool.integrations.device_index import device_index
from tierpool.integrations.optional_module import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tierpool.pool import MemoryPool


def allocator(pool: MemoryPool) -> Callable[[int], Any]:
    """Make an allocator for `cupy.cuda.set_allocator`.

    Parameters
    ----------
    pool : MemoryPool
        A pool on a GPU, ``device="cuda:0"``.

    Returns
    -------
    callable
        Takes a size in bytes, gives a `cupy.cuda.MemoryPointer` that keeps the memory until the last array over it
        is gone. The memory is for CuPy's current stream; using an array on another stream is ordered by who does it,
        as with CuPy's own pool.

    Raises
    ------
    ImportError
        Without CuPy; the message says how to install it.
    ValueError
        For a pool that is not on a GPU.
    """
    cupy = import_optional("cupy", "cupy")
    index = device_index(pool)
    cuda = cupy.cuda

    def allocate(nbytes: int) -> Any:
        buffer = pool.allocate(nbytes, stream=cuda.get_current_stream().ptr)
        return cuda.MemoryPointer(cuda.UnownedMemory(buffer.address, nbytes, buffer, index), 0)

    return allocate


def install(pool: MemoryPool) -> None:
    """Serve all further CuPy arrays of this process from a pool: `cupy.cuda.set_allocator`.

    ``cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)`` undoes it. Arguments and errors are those of
    `allocator`.
    """
    import_optional("cupy", "cupy").cuda.set_allocator(allocator(pool))


def use(pool: MemoryPool) -> AbstractContextManager[None]:
    """Serve CuPy arrays that this thread makes in a ``with`` block from a pool: `cupy.cuda.using_allocator`.

    Arguments and errors are those of `allocator`.
    """
    block: AbstractContextManager[None] = import_optional("cupy", "cupy").cuda.using_allocator(allocator(pool))
    return block
